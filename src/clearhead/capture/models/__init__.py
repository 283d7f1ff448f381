"""Models on this machine, and one text or picture read by one of them."""
