"""Measure texts: batch them by length, sum the weights of every head, compute the statistics of each text."""
