"""Safe printing to a terminal: text of packs, models, files and names cannot move the cursor or set a link.

Control characters (C0 except tab and line feed, C1), marks that reorder text, invisible tags and lone surrogates are
shown as Python escapes: `\\x1b[2J`. `typer.echo` is not used because it writes UTF-8 even if the terminal's encoding is
ASCII. `console.py` does the same for Rich.
"""

import contextlib
import json
import re
import sys
from typing import Any, Final

_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def clean(text: str) -> str:
    r"""Return the text with every character that a terminal acts on replaced by its escape.

    >>> clean("a\x1b[31mred\u202e")
    'a\\x1b[31mred\\u202e'
    """
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def count(many: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun.

    >>> count(1, "head"), count(20000, "text"), count(2, "batch", "batches")
    ('1 head', '20,000 texts', '2 batches')
    """
    return f"{many:,} {noun if many == 1 else plural or noun + 's'}"


def show(text: object, end: str = "\n") -> None:
    """Print a result on standard output, cleaned and flushed."""
    print(clean(str(text)), end=end, flush=True)


def show_entry(text: object) -> None:
    """Print an entry of a list. Its further lines are indented, so that they cannot look like other entries."""
    show(str(text).replace("\n", "\n    "))


def show_json(data: Any) -> None:
    """Print data as one line of JSON, with unsafe characters as JSON escapes.

    If the terminal's encoding is not Unicode, all non-ASCII characters are escaped, so that the line stays valid JSON.
    """
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(data, ensure_ascii=not unicode)
    print(_UNSAFE.sub(lambda match: json.dumps(match[0])[1:-1], text), flush=True)


def report(text: object) -> None:
    """Print a message on standard error, cleaned; if that cannot be written, do nothing."""
    with contextlib.suppress(OSError, ValueError):
        print(clean(str(text)), file=sys.stderr, flush=True)
