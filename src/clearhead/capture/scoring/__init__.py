"""Compute scores that say what each head does."""
