"""Long texts: first an outline from a few queries of each cell, then the exact map in parts.

Every answer takes some tenths of a second, and parts that the page no longer needs are not computed.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from clearhead.matrix import AttentionMatrix
from clearhead.views.links import LINKS, StrongestLinks
from clearhead.views.maps import Array, numbers

WORK = 2**28  # weights computed for one answer: some tenths of a second
LONG = 4 * WORK  # with more weights than this, in all heads, the first picture is an outline
SIDE = 192  # cells a side of an outline, at most
PARTS = tuple(count for count in range(1, SIDE + 1) if SIDE % count == 0)
CACHED_PIECES = 2 * SIDE  # pieces of one head, each with the normalisers of its rows: views of its queries and keys
CACHED_HEADS = 4  # single heads, each with a copy of its queries and keys

Cache = WeakKeyDictionary[AttentionMatrix, OrderedDict[Any, AttentionMatrix]]
_heads: Cache = WeakKeyDictionary()
_pieces: Cache = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Outline:
    """The outline of one layer, from a few queries of each cell.

    Attributes:
        map: (H, side, side), the mean weight of those queries.
        kept: the strongest links of one query per cell.
        breadth: (H,), how evenly those queries attend.
        few, stride: each cell uses `few` of its `stride` queries.
    """

    map: Array
    kept: StrongestLinks
    breadth: Array
    few: int
    stride: int


def is_long(matrices: list[Any]) -> bool:
    """Whether these matrices are so large that an outline must come first."""
    whole = sum(prod(matrix.shape[1:]) for matrix in matrices)
    return whole > LONG and all(isinstance(matrix, AttentionMatrix) for matrix in matrices)


def outline(matrix: AttentionMatrix, side: int, share: float) -> Outline:
    """Describe one layer from a few queries of each cell.

    Args:
        matrix: (B, H, L, S); the first entry of the batch is described.
        side: cells a side, at most isqrt(L).
        share: this layer's share of the work of an outline, 0..1.
    """
    _, heads, length, keys = matrix.shape
    stride = -(-length // side)
    few = max(1, min(stride // 2, int(share * WORK) // (side * heads * keys)))
    rows, weights, places, entropy, most = [], [], [], [], []
    for start in range(0, side * stride, stride):
        start = min(start, length - few)
        sample = _few_queries(matrix, start, start + few)
        statistics = sample.survey(k=min(LINKS, keys), cells=(1, side))
        rows.append(numbers(statistics.pooled)[0, :, 0])
        weights.append(numbers(statistics.topk[0])[0, :, 0])
        places.append(statistics.topk[1][0, :, 0].numpy(force=True))
        entropy.append(numbers(statistics.entropy)[0].sum(-1))
        most.append(np.log(np.maximum(numbers(sample.visible())[0], 1)).sum(-1))
    kept = StrongestLinks(np.stack(weights, 1), np.stack(places, 1), stride)
    size = np.sum(most, axis=0)
    breadth = np.divide(np.sum(entropy, axis=0), size, out=np.full(heads, np.nan), where=size > 0)
    return Outline(np.stack(rows, 1), kept, breadth, few, stride)


def sides(matrices: list[Any]) -> int:
    """Return how many cells a side the outline of each of these may have."""
    return max(1, min(SIDE, *(isqrt(min(matrix.shape[2:])) for matrix in matrices)))


def parts(matrix: Any, rows: int) -> int:
    """Return into how many parts to cut a question about this many queries of one head; 1: answer it at once."""
    if not isinstance(matrix, AttentionMatrix):
        return 1
    work = rows * matrix.shape[3]
    return next((count for count in PARTS if work <= count * WORK), SIDE)


def span(rows: slice, part: tuple[int, int]) -> slice:
    """Return the queries of one part, given as (which, of how many).

    >>> span(slice(100, 110), (1, 3))
    slice(103, 106, None)
    """
    which, count = part
    size = rows.stop - rows.start
    return slice(rows.start + which * size // count, rows.start + (which + 1) * size // count)


def piece(matrix: AttentionMatrix, head: int, rows: slice) -> AttentionMatrix:
    """Return some queries of one head, (B, 1, rows, S), cached so that their normalisers are computed once."""
    single_head = single(matrix, head)
    return _cached(
        _pieces, single_head, (rows.start, rows.stop), lambda: single_head.rows(rows.start, rows.stop), CACHED_PIECES
    )


def single(matrix: AttentionMatrix, head: int) -> AttentionMatrix:
    """Return one head, (B, 1, L, S), cached; a matrix with one head is returned as it is."""
    return matrix if matrix.shape[1] == 1 else _cached(_heads, matrix, head, lambda: matrix.heads([head]), CACHED_HEADS)


def _cached(
    kept: Cache, of: AttentionMatrix, name: Any, make: Callable[[], AttentionMatrix], most: int
) -> AttentionMatrix:
    """Return the cached matrix of that name, or a new one. The last `most` are kept."""
    known = kept.setdefault(of, OrderedDict())
    if name not in known:
        known[name] = make()
    known.move_to_end(name)
    while len(known) > most:
        known.popitem(last=False)
    return known[name]


def sketch(matrix: AttentionMatrix, head: int, rows: slice, cols: slice, cells: tuple[int, int]) -> tuple[Array, int]:
    """Return a map of a region, (1, down, across), from a few queries of each row of cells, and how many."""
    down, across = cells
    size = rows.stop - rows.start
    few = max(1, min(size // down, WORK // (down * matrix.shape[3])))
    single_head, maps = single(matrix, head), []
    for cell in range(down):
        start = rows.start + cell * size // down
        sample = _few_queries(single_head, start, start + few)
        maps.append(numbers(sample.pooled(1, across, region=(slice(0, few), cols)))[0])
    return np.concatenate(maps, axis=1), few


def _few_queries(matrix: AttentionMatrix, start: int, stop: int) -> AttentionMatrix:
    """Return a few queries. `maximum` computes their normalisers in one pass, which later statistics use."""
    sample = matrix.rows(start, stop)
    sample.maximum()
    return sample
