"""From texts to numbers: batches by length, the weights of every head, statistics of each text."""
