"""The cost of observing a model."""
