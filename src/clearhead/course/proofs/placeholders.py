"""`{{name}}` and `{{name:.3f}}` in prose: which names it asks for, and the prose with the values of a run filled in."""

import re
from collections.abc import Iterator, Mapping

_PLACE = re.compile(r"\{\{\s*+([A-Za-z_]\w*+)\s*+(?::([^{}]++))?\}\}")


def names(text: str) -> Iterator[tuple[str, str, int]]:
    """Each (name, format spec, line within the text from 0)."""
    line = at = 0
    for match in _PLACE.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        yield match[1], (match[2] or "").rstrip(), line


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with every place filled. A name that `values` lacks stays as it is; the proof has refused it before.

    >>> fill("{{n}} rows, {{loss:.2f}}", {"n": "3", "loss:.2f": "0.25"})
    '3 rows, 0.25'
    """

    def value(match: re.Match[str]) -> str:
        spec = (match[2] or "").rstrip()
        return values.get(f"{match[1]}:{spec}" if spec else match[1], match[0])

    return _PLACE.sub(value, text)
