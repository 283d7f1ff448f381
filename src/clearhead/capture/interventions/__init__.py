"""Run a model without a head, or with other weights or outputs for it: intervene and ablate."""
