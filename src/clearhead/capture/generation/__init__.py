"""The calls of one generation: keys kept once for all of them, and one matrix of all of them."""
