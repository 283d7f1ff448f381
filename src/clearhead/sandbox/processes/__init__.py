"""The processes that run programs, seen from outside: started, fed, watched, ended."""
