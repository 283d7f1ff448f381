"""Layers and whole models, with and without `clearhead.accelerate()`."""
