"""Our kernels beside their peers, in one process, A B A B. Run `make bench`, or `python -m bench --help`."""
