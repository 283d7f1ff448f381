"""Grade responses: compare them with a proof, or run them, and explain the verdict."""
