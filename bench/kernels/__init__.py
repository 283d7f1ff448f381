"""Attention and statistics compared with other libraries, and against length, on AMX and on a GPU."""
