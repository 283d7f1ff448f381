"""A survey as one page, and as data."""
