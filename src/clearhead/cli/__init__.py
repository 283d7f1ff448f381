"""The `clearhead` command, one file per command. Its libraries, Typer and Rich, come with the extra `cli`."""

from clearhead.extras import needs

with needs("cli", "the clearhead command"):
    from clearhead.cli.app import app, main

__all__ = ["app", "main"]
