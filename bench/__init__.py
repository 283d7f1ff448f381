"""Compares our kernels with their peers in one process, A B A B: `make bench`, or `python -m bench --help`."""
