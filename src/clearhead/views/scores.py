"""Numbers that say what kind each head is, by which a grid can be ordered: one value a head, exact, O(L) memory."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

import numpy as np
import torch

from clearhead.views.numbers import Array, numbers

if TYPE_CHECKING:
    from clearhead.matrix import AttentionMatrix


@dataclass(frozen=True, slots=True)
class Score:
    """One kind of number: its name, what it says, and how a matrix gives it, (H,)."""

    name: str
    about: str
    of: "Callable[[AttentionMatrix], Array]"

    def table(self, matrices: "Iterable[AttentionMatrix]") -> list[list[float]]:
        """`table[layer][head]`."""
        return [[round(float(value), 6) for value in self.of(matrix)] for matrix in matrices]


def spread(matrix: "AttentionMatrix") -> Array:
    """(H,): mean over queries of the row's entropy as a share of the most it could be, 0 sharp to 1 even."""
    keys = matrix.shape[-1]
    if keys < 2:
        return np.zeros(matrix.shape[1])
    return numbers(matrix.entropy())[0].mean(-1) / log(keys)


def reach(matrix: "AttentionMatrix") -> Array:
    """(H,): mean distance between query and key, in tokens (Vig & Belinkov 2019, section 3)."""
    return numbers(matrix.mean_distance())[0].mean(-1)


def first(matrix: "AttentionMatrix") -> Array:
    """(H,): mean weight on the first token, where many heads rest."""
    return numbers(matrix[0, :, :, 0]).mean(-1)


def own(matrix: "AttentionMatrix") -> Array:
    """(H,): mean weight of a token on itself."""
    return _along(matrix, 0)


def previous(matrix: "AttentionMatrix") -> Array:
    """(H,): mean weight on the token before."""
    return _along(matrix, -1)


def following(matrix: "AttentionMatrix") -> Array:
    """(H,): mean weight on the token after."""
    return _along(matrix, 1)


def _along(matrix: "AttentionMatrix", offset: int) -> Array:
    """The mean of a diagonal: query i and key i + offset."""
    _, heads, length, keys = matrix.shape
    queries = torch.arange(max(0, -offset), min(length, keys - offset))
    if not len(queries):
        return np.zeros(heads)
    return numbers(matrix[0, :, queries, queries + offset]).mean(-1)


SCORES = (
    Score("spread", "how evenly queries look, 0 one key to 1 all alike", spread),
    Score("reach", "mean distance from query to key, in tokens", reach),
    Score("previous", "mean weight on the token before", previous),
    Score("own", "mean weight on the token itself", own),
    Score("next", "mean weight on the token after", following),
    Score("first", "mean weight on the first token", first),
)
