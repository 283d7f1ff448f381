"""The studio's pages and requests, and a class at work."""
