"""What each model family and library computes, as a Call."""
