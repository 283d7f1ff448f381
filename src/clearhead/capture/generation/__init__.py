"""Keep the keys of a generation's calls once, and join its calls into one matrix."""
