"""The questions an attention matrix answers: of rows, of keys, as a map, and all together."""
