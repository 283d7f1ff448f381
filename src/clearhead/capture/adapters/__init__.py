"""Adapters that describe the attention of each model family and library as a Call."""
