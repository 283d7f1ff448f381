"""A line on standard output, or on standard error, in the encoding that the stream has.

Not `typer.echo`: it writes UTF-8 where the terminal says ASCII.
"""

import contextlib
import sys


def show(text: str, end: str = "\n") -> None:
    """A result, on standard output, at once."""
    print(text, end=end, flush=True)


def say(sentence: str) -> None:
    """A message, on standard error; where that cannot be written, nothing. Control characters show as escapes."""
    shown = "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in sentence)
    with contextlib.suppress(OSError, ValueError):
        print(shown, file=sys.stderr, flush=True)
