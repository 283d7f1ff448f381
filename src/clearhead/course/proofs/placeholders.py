"""Find placeholders in prose, `{{name}}` and `{{name:.3f}}`, and fill in the values of a run."""

import re
from collections.abc import Iterator, Mapping

from clearhead.sandbox.limits import value_key

_PLACE = re.compile(r"\{\{\s*+([A-Za-z_]\w*+)\s*+(?::([^{}]++))?\}\}")


def names(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield each (name, format spec, line within the text from 0)."""
    line = at = 0
    for match in _PLACE.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        yield match[1], (match[2] or "").rstrip(), line


def unset(text: str, values: Mapping[str, str]) -> tuple[str, int] | None:
    """Return the first placeholder that `values` lacks: its name, and its line within the text; None if all are set."""
    return next(((name, line) for name, spec, line in names(text) if value_key(name, spec) not in values), None)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return the text with its placeholders filled. Names that `values` lacks stay; the proof refuses them earlier.

    >>> fill("{{n}} rows, {{loss:.2f}}", {"n": "3", "loss:.2f": "0.25"})
    '3 rows, 0.25'
    """

    def value(match: re.Match[str]) -> str:
        return values.get(value_key(match[1], (match[2] or "").rstrip()), match[0])

    return _PLACE.sub(value, text)
