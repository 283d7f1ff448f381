"""Read packs: parse text files into typed items and pages, and report every mistake with its line."""
