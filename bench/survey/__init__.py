"""Surveys of a corpus, and of one very long text."""
