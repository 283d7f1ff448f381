"""Anki: decks written; packages and text files read."""
