"""Pictures and sound: what a model saw or heard, and the tokens that it became."""
