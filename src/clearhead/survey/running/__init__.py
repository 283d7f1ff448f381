"""Who computes the parts: threads of this process, or actors on Ray."""
