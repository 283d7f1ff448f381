"""Compute what each head adds to the residual stream, through the output projection of its layer."""
