"""Placement of a sequence: which positions each rank holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from clearhead.errors import OptionError, PlaceError, ShapeError

CONTIGUOUS, ZIGZAG = "contiguous", "zigzag"
PLACEMENTS = (CONTIGUOUS, ZIGZAG)


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive positions that a rank holds.

    Attributes:
        first: the first position.
        local: their slice of the sequence axis of the rank's own tensor.
    """

    first: int
    local: slice

    @property
    def positions(self) -> slice:
        """The positions in the whole sequence."""
        return slice(self.first, self.first + self.local.stop - self.local.start)


def pieces(placement: str, lengths: Sequence[int]) -> list[list[Piece]]:
    """Return the pieces of each rank, in the order of its tensor.

    Args:
        placement: "contiguous": rank r holds the r-th run of positions, and lengths may differ. "zigzag": of 2n runs of
            equal length, rank r holds runs r and 2n-1-r, which gives each rank the same work under a causal mask. The
            two runs of the last rank are adjacent, and form one piece.
        lengths: how many positions each rank holds.
    Raises:
        OptionError: the placement is unknown.
        ShapeError: the lengths are not equal and even, which zigzag needs.

    Example:
        >>> [[part.first for part in rank] for rank in pieces("zigzag", [4, 4, 4])]
        [[0, 10], [2, 8], [4]]
    """
    check(placement)
    if placement == CONTIGUOUS:
        starts = accumulate([0, *lengths[:-1]])
        return [[Piece(start, slice(0, length))] for start, length in zip(starts, lengths, strict=True)]
    if len(set(lengths)) > 1 or lengths[0] % 2:
        raise ShapeError(
            f"the ranks hold {', '.join(map(str, lengths))} positions; zigzag needs the same even number on each. "
            f"Pad the sequence to a multiple of {2 * len(lengths)}, or use placement='contiguous'."
        )
    half, runs = lengths[0] // 2, 2 * len(lengths)
    lower, upper = slice(0, half), slice(half, 2 * half)
    pairs = [[Piece(rank * half, lower), Piece((runs - 1 - rank) * half, upper)] for rank in range(len(lengths) - 1)]
    return [*pairs, [Piece((len(lengths) - 1) * half, slice(0, 2 * half))]]


def check(placement: str) -> None:
    """Refuse an unknown placement.

    Raises:
        OptionError: the message lists the known ones.
    """
    if placement not in PLACEMENTS:
        raise OptionError(f"placement={placement!r} is unknown. Use {' or '.join(map(repr, PLACEMENTS))}.")


def positions(parts: Sequence[Piece]) -> Tensor:
    """Return the positions that a rank holds, int64, in the order of its tensor.

    >>> positions(pieces("zigzag", [4, 4])[0]).tolist()
    [0, 1, 6, 7]
    """
    runs = [torch.arange(part.positions.start, part.positions.stop, device="cpu") for part in parts]
    return torch.cat(runs) if runs else torch.empty(0, dtype=torch.int64, device="cpu")


def split_evenly(length: int, ranks: int) -> list[int]:
    """Return how many positions each rank gets, as in torch's Shard: ceil(length / ranks) until none are left.

    >>> split_evenly(7, 3), split_evenly(4, 3)
    ([3, 3, 1], [2, 2, 0])
    """
    each = -(-length // ranks)
    return [max(0, min(each, length - rank * each)) for rank in range(ranks)]


def chosen_keys(keys: Sequence[int] | Tensor, size: int) -> Tensor:
    """Return positions without duplicates, from positions or a boolean tensor."""
    chosen = torch.as_tensor(keys, device="cpu")
    if chosen.dtype is torch.bool:
        if chosen.shape != (size,):
            raise ShapeError(f"keys is a boolean tensor of shape {tuple(chosen.shape)}, expected ({size},), axis S.")
        return chosen.nonzero().flatten()
    chosen = chosen.long().flatten()
    if chosen.numel() and not (-size <= int(chosen.min()) and int(chosen.max()) < size):
        raise PlaceError(f"keys={chosen.tolist()[:8]} has a position outside S={size}. Use 0..{size - 1}.")
    return (chosen % max(size, 1)).unique()
