"""Format the numbers of a survey for people."""

from __future__ import annotations

from collections.abc import Callable

NOTHING = "–"


def title(name: str) -> str:
    """Return a statistic's name as a heading.

    >>> title("previous_token")
    'Previous token'
    """
    return name.replace("_", " ").capitalize()


def number(value: float | None) -> str:
    """Return a number with three significant digits, or fewer if it is very small: six decimals at most.

    >>> number(0.99871), number(0.0), number(-0.00013), number(2.7301), number(None)
    ('0.999', '0', '-0.00013', '2.73', '–')
    >>> number(-4.49e-05), number(2e-8)
    ('-0.000045', '0')
    """
    if value is None:
        return NOTHING
    if abs(value) >= 1e-4:
        return f"{value:.3g}"
    rounded = round(value, 6)
    return f"{rounded:.6f}".rstrip("0") if rounded else "0"


def percent(value: float | None) -> str:
    """Return a share in percent.

    >>> percent(1.0), percent(0.0704), percent(0.00042), percent(None)
    ('100%', '7%', '0.04%', '–')
    """
    if value is None:
        return NOTHING
    return f"{value:.0%}" if value >= 0.01 or value == 0 else f"{value:.2%}"


def interval(low: float | None, high: float | None, written: Callable[[float | None], str]) -> str:
    """Return the two ends of an interval.

    >>> interval(0.25, 0.5, percent), interval(None, None, percent)
    ('25% to 50%', '–')
    """
    return NOTHING if low is None or high is None else f"{written(low)} to {written(high)}"
