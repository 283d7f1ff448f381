"""Turn the arguments of a call into a problem for the kernels."""
