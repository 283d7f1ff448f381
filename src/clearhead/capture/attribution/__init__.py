"""Explain why a head attends: one logit as a sum over the parts of the residual stream."""
