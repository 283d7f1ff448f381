"""Numbers as people type them: fractions, percentages, powers and number words, rewritten as plain numbers."""

import re
from collections.abc import Callable

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
_FRACTION = re.compile(rf"(?<![\w./])({_NUMBER})\s*/\s*(\d+(?:\.\d*)?)(?![\w./])")
_PERCENT = re.compile(rf"(?<![\w.])({_NUMBER})\s*%")
_POWER = re.compile(rf"(?<![\w.])({_NUMBER})\s*(?:\^|\*\*)\s*([-+]?\d{{1,3}})(?![\w.])")
_WORD = re.compile(rf"\b({'|'.join(_WORDS)})\b", re.IGNORECASE)
_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], float]], ...] = (
    (_WORD, lambda match: float(_WORDS.index(match[1].lower()))),
    (_POWER, lambda match: float(match[1]) ** int(match[2])),
    (_FRACTION, lambda match: float(match[1]) / float(match[2])),
    (_PERCENT, lambda match: float(match[1]) / 100),
)


def plain_numbers(typed: str) -> str:
    """Return the text with every number in a form of its own written out.

    >>> plain_numbers("1/4 and 25%"), plain_numbers("head three"), plain_numbers("2^10")
    ('0.25 and 0.25', 'head 3', '1024')
    """
    for pattern, value in _FORMS:
        typed = pattern.sub(lambda match, value=value: _written(match, value), typed)  # type: ignore[misc]
    return typed


def _written(match: re.Match[str], value: Callable[[re.Match[str]], float]) -> str:
    try:
        return f"{value(match):.15g}"
    except (ZeroDivisionError, OverflowError):
        return match[0]
