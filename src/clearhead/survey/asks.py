"""The asks of a survey, and the statistics that each of them measures for every text and head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from clearhead.errors import OptionError


@dataclass(frozen=True, slots=True)
class Statistic:
    """A statistic: one number per text and head.

    Attributes:
        name: its name in tables.
        asks: the asks that include it.
        about: what it means, for the heading of a column.
        does: what a head does whose value reaches the threshold, as the end of "this head …"; "" if it names no role.
        threshold: a text with at least this value counts in the share of texts; None if there is no share.
        bounded: whether it is between 0 and 1, so that a histogram of it is kept.
    """

    name: str
    asks: tuple[str, ...]
    about: str
    does: str = ""
    threshold: float | None = None
    bounded: bool = True


ASKS: Final = {
    "scores": "what a head looks at by position and by repetition, as `clearhead see --scores` does for one text",
    "entropy": "how evenly a head looks",
    "received": "how much of a head's attention each kind of token and each distance gets",
    "sinks": "how much of it goes to the first token and to separators",
    "ablation": "what changes without the head, on a sample of the texts",
}
DEFAULT: Final = ("scores", "entropy", "received", "sinks")

STATISTICS: Final = (
    Statistic("previous_token", ("scores",), "weight on the token before", "looks at the token before", 0.5),
    Statistic(
        "first_token",
        ("scores", "sinks"),
        "weight on the first token, from later ones",
        "rests on the first token",
        0.5,
    ),
    Statistic(
        "duplicate_token",
        ("scores",),
        "weight on earlier places of the same token",
        "finds the same token earlier",
        0.4,
    ),
    Statistic(
        "induction", ("scores",), "weight on what followed the same token before", "finds what followed last time", 0.4
    ),
    Statistic("separator", ("scores", "sinks"), "weight on special tokens after the first", "rests on separators", 0.5),
    Statistic("sink", ("sinks",), "weight on the first token and separators together", "rests on sinks", 0.8),
    Statistic("breadth", ("scores", "entropy"), "entropy as a share of the most there could be", "looks broadly", 0.9),
    Statistic(
        "positional", ("scores",), "share of queries at the head's commonest offset", "looks at a fixed distance", 0.9
    ),
    Statistic("entropy", ("entropy",), "mean entropy of the queries, in nats", bounded=False),
    Statistic("maximum", ("entropy",), "mean of each query's largest weight", "picks one token", 0.9),
    Statistic("on_special", ("received",), "weight on the tokenizer's special tokens", "looks at special tokens", 0.5),
    Statistic("on_punctuation", ("received",), "weight on punctuation", "looks at punctuation", 0.4),
    Statistic("on_number", ("received",), "weight on numbers", "looks at numbers", 0.4),
    Statistic("on_word", ("received",), "weight on words and their pieces", "looks at words", 0.9),
    Statistic("on_self", ("received",), "weight on the query's own token", "looks at its own token", 0.5),
    Statistic("on_next", ("received",), "weight on the token after", "looks at the token after", 0.5),
    Statistic("on_near", ("received",), "weight 2 to 4 tokens away", "looks 2 to 4 tokens away", 0.5),
    Statistic("on_far", ("received",), "weight 5 tokens away and farther", "looks far away", 0.8),
    Statistic("ablation", ("ablation",), "what the loss gains without the head", bounded=False),
)
BY_NAME: Final = {statistic.name: statistic for statistic in STATISTICS}


def checked_asks(asks: str | Iterable[str]) -> tuple[str, ...]:
    """Return asks in their own order, each once, from names or a list separated by commas.

    Raises:
        OptionError: there is none, or one is not known.

    >>> checked_asks("entropy, scores")
    ('scores', 'entropy')
    """
    names = [name.strip() for name in (asks.split(",") if isinstance(asks, str) else asks)]
    if not any(names):
        raise OptionError(f"--ask names nothing. Give some of {', '.join(ASKS)}, separated by commas.")
    for name in names:
        if name not in ASKS:
            raise OptionError(f"--ask has {name!r} in it, expected some of {', '.join(ASKS)}, separated by commas.")
    return tuple(name for name in ASKS if name in names)


def statistics_of(asks: Iterable[str]) -> tuple[Statistic, ...]:
    """Return the statistics of some asks, in the order of `STATISTICS`."""
    chosen = set(asks)
    return tuple(statistic for statistic in STATISTICS if chosen.intersection(statistic.asks))
