"""Convert between Markdown, HTML and LaTeX, and make active content in them inert."""
