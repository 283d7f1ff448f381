"""Find placeholders in prose, `{{name}}` and `{{name:.3f}}`, and fill in the values of a run."""

import re
from collections.abc import Iterator, Mapping

_PLACE = re.compile(r"\{\{\s*+([A-Za-z_]\w*+)\s*+(?::([^{}]++))?\}\}")


def names(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield each (name, format spec, line within the text from 0)."""
    line = at = 0
    for match in _PLACE.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        yield match[1], (match[2] or "").rstrip(), line


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return the text with its placeholders filled. Names that `values` lacks stay; the proof refuses them earlier.

    >>> fill("{{n}} rows, {{loss:.2f}}", {"n": "3", "loss:.2f": "0.25"})
    '3 rows, 0.25'
    """

    def value(match: re.Match[str]) -> str:
        spec = (match[2] or "").rstrip()
        return values.get(f"{match[1]}:{spec}" if spec else match[1], match[0])

    return _PLACE.sub(value, text)
