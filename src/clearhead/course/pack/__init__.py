"""Read packs: text files to typed items and pages, with every mistake reported at its line."""
