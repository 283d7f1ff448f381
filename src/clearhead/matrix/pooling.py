"""The matrix as a small map: the mean of each cell, at any resolution."""

import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead.matrix import products
from clearhead.matrix.logits import Logits

# Elements of the (heads, L, columns) table on the way to a map: 64 MiB of float32.
TABLE = 2**24


def edges(size: int, cells: int) -> list[tuple[int, int]]:
    """First and last-but-one position of each cell, as torch's adaptive pooling cuts.

    Cells touch where `cells` divides `size`; else neighbours share a position, so that none is left out.

    >>> edges(10, 4)
    [(0, 3), (2, 5), (5, 8), (7, 10)]
    """
    return [(cell * size // cells, -((cell + 1) * size // -cells)) for cell in range(cells)]


def pooled(logits: Logits, lse: Tensor, rows: int, cols: int) -> Tensor:
    """(B, H, rows, cols): the mean weight in each cell. A multiplied by averaging columns, then averaged over rows."""
    batch, heads, length, _ = logits.shape
    width = min(cols, products.WIDEST)
    if batch * heads * length * width <= TABLE:
        return _pooled(logits, lse, rows, cols)
    each = [
        [_pooled(logits.one(b, h), lse[b : b + 1, h : h + 1], rows, cols)[0, 0] for h in range(heads)]
        for b in range(batch)
    ]
    return torch.stack([torch.stack(maps) for maps in each])


def _pooled(logits: Logits, lse: Tensor, rows: int, cols: int) -> Tensor:
    _, _, length, keys = logits.shape
    cells = edges(keys, cols)
    maps = []
    for start in range(0, cols, products.WIDEST):
        chunk = cells[start : start + products.WIDEST]
        span = slice(chunk[0][0], chunk[-1][1])
        averaging = _averaging(chunk, span, logits.query).expand(*logits.key.shape[:2], -1, -1)
        table = products.partial(logits, averaging, lse, slice(0, length), span)
        maps.append(F.adaptive_avg_pool2d(table, (rows, len(chunk))))
    return torch.cat(maps, dim=-1)


def _averaging(cells: list[tuple[int, int]], span: slice, like: Tensor) -> Tensor:
    """(span, cells): column c holds 1/width over the positions of cell c."""
    columns = like.new_zeros(span.stop - span.start, len(cells))
    for index, (start, stop) in enumerate(cells):
        columns[start - span.start : stop - span.start, index] = 1.0 / (stop - start)
    return columns
