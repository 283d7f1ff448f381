"""Attention over ranks, measured and simulated."""
