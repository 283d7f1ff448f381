"""`MultiheadAttention`: its checks, masks and projections, and the ways to build it from other weights."""
