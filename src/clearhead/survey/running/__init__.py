"""Runners that compute the parts: threads of this process, or actors on Ray."""
