"""From the arguments of a call to a problem for the kernels."""
