"""The statistics of an attention matrix: per row, per key, as a map, and all in one sweep."""
