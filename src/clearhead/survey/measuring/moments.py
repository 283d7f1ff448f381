"""Count, mean and variance over many texts. Merging parts in their order gives the same result bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 20  # bins of the histogram of a statistic between 0 and 1
EXAMPLES = 3
SHORTEST_EXAMPLE = 8  # tokens; in a text of three tokens, many values are large by chance

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(slots=True)
class Moments:
    """The moments of one statistic over some texts, for the N heads of all layers.

    Attributes:
        count, mean, squares: (N,), the number of texts with a value, their mean, and Σ(value - mean)².
        least, most: (N,), NaN where the count is 0.
        above: (N,), the number of values that reach the threshold.
        histogram: (N, BINS), of values from 0 to 1.
        example_values, example_texts: (N, EXAMPLES), the largest values and their texts, NaN and -1 where there are
            fewer.
    """

    count: Counts
    mean: Floats
    squares: Floats
    least: Floats
    most: Floats
    above: Counts
    histogram: Counts
    example_values: Floats
    example_texts: Counts

    @classmethod
    def of(cls, values: Floats, texts: Counts, lengths: Counts, threshold: float | None, *, bounded: bool) -> Moments:
        """Return the moments of a table.

        Args:
            values: (T, N), NaN where a text has no value.
            texts, lengths: (T,), the number of each text, increasing, and its length in tokens.
            threshold: the value from which a text counts in `above`; None: no text counts.
            bounded: whether values are between 0 and 1.
        """
        known = ~np.isnan(values)
        count = known.sum(0)
        filled = np.where(known, values, 0.0)
        mean = filled.sum(0) / np.maximum(count, 1)
        squares = (np.where(known, values - mean, 0.0) ** 2).sum(0)
        empty = count == 0
        least = np.where(empty, np.nan, np.where(known, values, np.inf).min(0, initial=np.inf))
        most = np.where(empty, np.nan, np.where(known, values, -np.inf).max(0, initial=-np.inf))
        above = np.zeros_like(count) if threshold is None else (known & (filled >= threshold)).sum(0)
        examples = _largest(np.where(known & (lengths >= SHORTEST_EXAMPLE)[:, None], values, -np.inf), texts)
        histogram = _histogram(filled, known) if bounded else np.zeros((values.shape[1], BINS), dtype=np.int64)
        return cls(count, mean, squares, least, most, above, histogram, *examples)

    def merged(self, later: Moments) -> Moments:
        """Return the moments of both. Source: Chan, Golub & LeVeque 1979, "Updating Formulae and a Pairwise …"."""
        count = self.count + later.count
        share = later.count / np.maximum(count, 1)
        difference = later.mean - self.mean
        return Moments(
            count,
            self.mean + difference * share,
            self.squares + later.squares + difference**2 * self.count * share,
            np.fmin(self.least, later.least),
            np.fmax(self.most, later.most),
            self.above + later.above,
            self.histogram + later.histogram,
            *_largest(
                np.nan_to_num(np.concatenate([self.example_values, later.example_values], 1), nan=-np.inf).T,
                np.concatenate([self.example_texts, later.example_texts], 1).T,
            ),
        )

    def rows(self, heads: NDArray[np.intp]) -> Moments:
        """Return the moments of some heads."""
        return Moments(*(getattr(self, name)[heads] for name in self.__slots__))

    def columns(self) -> dict[str, Any]:
        """Return the moments as columns of a table with one row per head."""
        return {name: _listed(getattr(self, name)) for name in self.__slots__}


def _listed(values: NDArray[Any]) -> Any:
    return values if values.ndim == 1 else values.tolist()


def _largest(values: Floats, texts: Counts) -> tuple[Floats, Counts]:
    """Return the largest of (T, N) values and their texts, each (N, EXAMPLES). Of equal values, the earliest text."""
    values = values.copy()
    heads = np.arange(values.shape[1])
    shape = (values.shape[1], EXAMPLES)
    best, where = np.full(shape, np.nan), np.full(shape, -1, dtype=np.int64)
    for place in range(min(EXAMPLES, len(values))):
        row = values.argmax(0)
        top = values[row, heads]
        there = top > -np.inf
        best[there, place] = top[there]
        where[there, place] = (texts[row] if texts.ndim == 1 else texts[row, heads])[there]
        values[row, heads] = -np.inf
    return best, where


def _histogram(values: Floats, known: NDArray[np.bool_]) -> Counts:
    """Return (N, BINS): how many of the (T, N) values are in each twentieth from 0 to 1. The last bin includes 1."""
    bins = np.clip((values * BINS).astype(np.int64), 0, BINS - 1)
    heads = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    flat = (heads * BINS + bins)[known]
    return np.bincount(flat, minlength=values.shape[1] * BINS).reshape(-1, BINS)
