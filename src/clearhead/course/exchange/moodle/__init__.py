"""Moodle's XML: written and read."""
