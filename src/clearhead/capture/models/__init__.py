"""Load models from this machine, and run a text or a picture through them."""
