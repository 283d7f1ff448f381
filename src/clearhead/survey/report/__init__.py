"""Report a survey as one HTML page, or as data."""
