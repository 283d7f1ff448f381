"""Models on this machine, without torch: names that the user gave to folders, and the chat model that is fetched."""
