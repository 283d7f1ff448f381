"""Format the numbers of a survey for people."""

from __future__ import annotations

import math
from collections.abc import Callable

NOTHING = "–"


# Headings of statistics whose names are not words for a reader.
TITLES = {
    "maximum": "Largest weight",
    "on_special": "On special tokens",
    "on_number": "On numbers",
    "on_word": "On words",
    "on_self": "On its own token",
    "on_next": "On the token after",
    "on_near": "On near tokens",
    "on_far": "On far tokens",
}


def title(name: str) -> str:
    """Return the heading of a statistic.

    >>> title("previous_token"), title("on_far")
    ('Previous token', 'On far tokens')
    """
    return TITLES.get(name) or name.replace("_", " ").capitalize()


def number(value: float | None) -> str:
    """Return a number with three significant digits, or with more just below 1: six decimals at most.

    >>> number(0.99871), number(0.0), number(-0.00013), number(2.7301), number(None)
    ('0.999', '0', '-0.00013', '2.73', '–')
    >>> number(-4.49e-05), number(2e-8), number(0.99984), number(-0.9999959), number(1 - 2e-8)
    ('-0.000045', '0', '0.9998', '-0.999996', '1')
    """
    if value is None:
        return NOTHING
    to_one = 1 - abs(value)
    if 0 < to_one < 5e-4:  # three digits would round it to 1
        text = f"{value:.{min(-math.floor(math.log10(to_one)), 6)}f}"
        return text.rstrip("0").rstrip(".")
    if abs(value) >= 1e-4:
        return f"{value:.3g}"
    rounded = round(value, 6)
    return f"{rounded:.6f}".rstrip("0") if rounded else "0"


def percent(value: float | None) -> str:
    """Return a share in percent. Only 0 is "0%", and only 1 is "100%".

    >>> percent(1.0), percent(0.0704), percent(0.00042), percent(0.9962), percent(None)
    ('100%', '7%', '0.04%', '99.62%', '–')
    >>> percent(0.0), percent(2e-5), percent(1 - 2e-5)
    ('0%', '<0.01%', '>99.99%')
    """
    if value is None:
        return NOTHING
    if 0 < value < 5e-5 or 0 < 1 - value < 5e-5:
        return "<0.01%" if value < 0.5 else ">99.99%"
    return f"{value:.0%}" if 0.01 <= value < 0.995 or value in (0, 1) else f"{value:.2%}"


def interval(low: float | None, high: float | None, written: Callable[[float | None], str]) -> str:
    """Return the two ends of an interval.

    >>> interval(0.25, 0.5, percent), interval(None, None, percent)
    ('25% to 50%', '–')
    """
    return NOTHING if low is None or high is None else f"{written(low)} to {written(high)}"
