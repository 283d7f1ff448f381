"""The page of a reading: its data, its answers, and the HTML file."""
