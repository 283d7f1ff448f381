"""Names for models on this machine, and the chat model that is fetched once. Does not import torch."""
