"""Positions: the token of each query and key of a call. In decode and in cross-attention, row i is not token i."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

# "input": the model's text (the encoder's, in an encoder-decoder). "decoder": the decoder's text.
# "other": states that do not correspond to single tokens, such as pooled states, windows of an image, latents.
Sequence = Literal["input", "decoder", "other"]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a matrix: the sequence it runs along, and the position of each entry in it, from 0.

    Positions past the end of the sequence are slots of a cache that hold no token yet.
    """

    sequence: Sequence
    positions: range | tuple[int, ...]

    @property
    def start(self) -> int | None:
        """The first position if the positions are consecutive, else None."""
        return self.positions.start if isinstance(self.positions, range) else None


@dataclass(frozen=True, slots=True)
class Positions:
    """The positions of the queries and keys of one matrix.

    Attributes:
        queries, keys: the axes.
        text: the number of the text, from 0; a new text begins when the model starts without a cache.
        nth: the number of the module's call within one pass of the model, from 0; above 0 if layers share one module.
    """

    queries: Axis
    keys: Axis
    text: int = 0
    nth: int = 0

    @property
    def offset(self) -> int | None:
        """The key index of query 0's own token, so that query i is the token of key i + offset; or None."""
        first, key = self.queries.start, self.keys.start
        if self.queries.sequence != self.keys.sequence or self.queries.sequence == "other":
            return None
        return None if first is None or key is None else first - key

    @property
    def within(self) -> bool:
        """Whether queries and keys are tokens of one sequence."""
        return self.queries.sequence == self.keys.sequence != "other"


def to_lists(positions: Positions) -> list[Any]:
    """Return the positions as lists and numbers, for a file."""
    axes = [
        [axis.sequence, [axis.start, len(axis.positions)] if axis.start is not None else list(axis.positions)]
        for axis in (positions.queries, positions.keys)
    ]
    starts = [axis.start is not None for axis in (positions.queries, positions.keys)]
    return [axes, starts, positions.text, positions.nth]


def from_lists(saved: Any) -> Positions | None:
    """Return the positions that `to_lists` turned into lists.

    >>> where = assumed(2, 5, 3)
    >>> from_lists(to_lists(where)) == where
    True
    """
    if saved is None:
        return None
    axes, starts, text, nth = saved
    queries, keys = (
        Axis(sequence, range(places[0], places[0] + places[1]) if is_range else tuple(places))
        for (sequence, places), is_range in zip(axes, starts, strict=True)
    )
    return Positions(queries, keys, text, nth)


def assumed(queries: int, keys: int, high: int | None = None) -> Positions:
    """Return the positions to assume for a matrix without any other information.

    A square matrix is self-attention, and so is one whose mask ends `high` keys after the query's own index. Any other
    matrix is cross-attention.
    """
    if queries == keys or high is not None:
        start = high or 0
        return Positions(Axis("input", range(start, start + queries)), Axis("input", range(keys)))
    return Positions(Axis("decoder", range(queries)), Axis("input", range(keys)))
