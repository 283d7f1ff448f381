"""Conversion between Markdown, HTML and LaTeX, and what must be made inert in them."""
