"""Find attention in code that has no adapter, from its softmax."""
