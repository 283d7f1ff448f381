"""Bands: which keys a query may attend, as limits on key position - query position."""

import torch
from torch import Tensor

Band = tuple[int | None, int | None]
EVERYWHERE: Band = (None, None)
CAUSAL: Band = (None, 0)


def intersect(band: Band, other: Band) -> Band:
    """Return the band that both allow.

    >>> intersect((None, 0), (-3, 3))
    (-3, 0)
    """
    lows = [low for low in (band[0], other[0]) if low is not None]
    highs = [high for high in (band[1], other[1]) if high is not None]
    return max(lows) if lows else None, min(highs) if highs else None  # torch.compile does not support max(default=)


def shift(band: Band, by: int) -> Band:
    """Return the band with both limits moved.

    >>> shift((None, 0), 4)
    (None, 4)
    """
    low, high = band
    return None if low is None else low + by, None if high is None else high + by


def outside(band: Band, query: Tensor, key: Tensor) -> Tensor:
    """Return whether each key is outside the query's band, bool; positions broadcast.

    >>> outside((-1, 0), torch.tensor([[0], [2]]), torch.arange(4)).tolist()
    [[False, True, True, True], [True, False, False, True]]
    """
    low, high = band
    distance = key - query
    if low is None:
        return torch.zeros((), dtype=torch.bool, device=distance.device) if high is None else distance > high
    return distance < low if high is None else (distance < low) | (distance > high)


def span(band: Band, rows: slice, cols: slice) -> slice:
    """Return the slice of `cols` that contains every key some row may attend.

    >>> span((-2, 0), slice(4, 6), slice(0, 100))
    slice(2, 6, None)
    """
    low, high = band
    left = cols.start if low is None else max(cols.start, min(rows.start + low, cols.stop))
    right = cols.stop if high is None else min(cols.stop, rows.stop + high)
    return slice(left, max(right, left))
