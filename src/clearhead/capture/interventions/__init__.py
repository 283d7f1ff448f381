"""What a model does without a head, or with other weights or outputs in its place: intervene and ablate."""
