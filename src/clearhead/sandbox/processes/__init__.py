"""Start, feed, watch and end the processes that run programs."""
