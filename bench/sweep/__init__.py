"""Where a call is slower than torch's: listed cases, cases drawn at random, and the costs fitted to them."""
