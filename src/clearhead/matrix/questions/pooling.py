"""Pool the matrix, or a rectangle of it, to a small map: the mean or the maximum of each cell."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead.matrix import logits as matrix_logits
from clearhead.matrix import products
from clearhead.matrix.logits import Logits, weigh
from clearhead.spec.band import span

# Elements of the intermediate (heads, L, columns) tensor of a map: 64 MiB of float32.
TABLE = 2**24

Pool = Callable[[Logits, Tensor, tuple[int, int], slice, slice], Tensor]


def edges(size: int, cells: int) -> list[tuple[int, int]]:
    """Return (start, stop) of each cell, as torch's adaptive pooling divides an axis.

    If `cells` does not divide `size`, neighbouring cells may share a position, so that every position is covered.

    >>> edges(10, 4)
    [(0, 3), (2, 5), (5, 8), (7, 10)]
    """
    return [(cell * size // cells, -((cell + 1) * size // -cells)) for cell in range(cells)]


def pooled(logits: Logits, lse: Tensor, cells: tuple[int, int], rows: slice, cols: slice, pool: Pool) -> Tensor:
    """Return one number per cell of the rectangle rows × cols, by `mean` or `maximum`: (B, H, *cells)."""
    batch, heads, _, _ = logits.shape
    if batch * heads * (rows.stop - rows.start) * min(cells[1], products.WIDEST) <= TABLE:
        return pool(logits, lse, cells, rows, cols)
    each = [
        [pool(logits.single_head(b, h), lse[b : b + 1, h : h + 1], cells, rows, cols)[0, 0] for h in range(heads)]
        for b in range(batch)
    ]
    return torch.stack([torch.stack(maps) for maps in each])


def mean(logits: Logits, lse: Tensor, cells: tuple[int, int], rows: slice, cols: slice) -> Tensor:
    """Return the mean of each cell, in one forward pass: A times averaging columns, averaged over rows."""
    across = edges(cols.stop - cols.start, cells[1])
    maps = []
    for start in range(0, len(across), products.WIDEST):
        chunk = across[start : start + products.WIDEST]
        left, right = chunk[0][0], chunk[-1][1]
        averaging = logits.query.new_zeros(right - left, len(chunk))
        for index, (first, last) in enumerate(chunk):
            averaging[first - left : last - left, index] = 1.0 / (last - first)
        span = slice(cols.start + left, cols.start + right)
        table = products.partial(logits, averaging.expand(*logits.key.shape[:2], -1, -1), lse, rows, span)
        maps.append(F.adaptive_avg_pool2d(table, (cells[0], len(chunk))))
    return torch.cat(maps, dim=-1)


def maximum(logits: Logits, lse: Tensor, cells: tuple[int, int], rows: slice, cols: slice) -> Tensor:
    """Return the largest weight of each cell, in one blockwise pass over the rectangle."""
    batches, heads, _, _ = logits.shape
    down, size = edges(rows.stop - rows.start, cells[0]), cols.stop - cols.start
    tall = max(matrix_logits.BLOCK // max(heads * size, 1), 1)
    maps = []
    for batch in range(batches):
        strips = []
        for first, last in down:
            best = logits.query.new_zeros(heads, size)
            for start in range(rows.start + first, rows.start + last, tall):
                strip = slice(start, min(start + tall, rows.start + last))
                seen = span(logits.attention.reach, strip, cols)
                if seen.stop > seen.start:
                    weights = weigh(logits.block(batch, slice(0, heads), strip, seen), lse[batch, :, strip])
                    around = (seen.start - cols.start, cols.stop - seen.stop)
                    best = torch.maximum(best, F.pad(weights.amax(1), around))
            strips.append(F.adaptive_max_pool1d(best, cells[1]))
        maps.append(torch.stack(strips, dim=1))
    return torch.stack(maps)


def allowed(logits: Logits, cells: tuple[int, int], rows: slice, cols: slice) -> Tensor:
    """Return the share of each cell that band and mask allow: float32, (B, H, *cells).

    In each row the keys inside the band are consecutive, so differences of a cumulative count of allowed keys give each
    cell's number. Differences of a cumulative sum over rows then give the number of a cell's rows.
    """
    batch, heads, _, keys = logits.shape
    attention, device = logits.attention, logits.query.device
    across = torch.tensor(edges(cols.stop - cols.start, cells[1]), device=device) + cols.start
    down = torch.tensor(edges(rows.stop - rows.start, cells[0]), device=device) + rows.start
    ends = down.unique()  # the rows before which the cumulative sum is needed
    is_masked = attention.allow is not None or attention.rule is not None
    step = max(matrix_logits.BLOCK // max(keys if is_masked else 1, cells[1]), 1)
    total, sums = torch.zeros((), dtype=torch.int64, device=device), []
    for start in range(rows.start, rows.stop, step):
        strip = torch.arange(start, min(start + step, rows.stop), device=device)
        counts = _allowed_between(logits, strip, *_in_band(attention.reach, strip, across)).cumsum(2)
        here = ends[(ends >= start) & (ends < start + len(strip))] - start
        sums.append(total + F.pad(counts, (0, 0, 1, 0))[:, :, here])
        total = total + counts[:, :, -1:]
    every = torch.cat([*sums, total.expand(*sums[0].shape[:2], -1, -1)], dim=2)  # the last one is before `rows.stop`
    first, last = (every[:, :, torch.searchsorted(ends, edge)] for edge in down.mT.contiguous())
    area = (down[:, 1] - down[:, 0])[:, None] * (across[:, 1] - across[:, 0])
    return ((last - first).float() / area).expand(batch, heads, -1, -1)


def _in_band(reach: tuple[int | None, int | None], rows: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first key of each cell inside a row's band, and the end of those keys, (rows, cells) each."""
    low, high = reach
    place = rows[:, None]
    begin = across[:, 0].expand(len(rows), -1) if low is None else across[:, 0].maximum(place + low)
    end = across[:, 1].expand(len(rows), -1) if high is None else across[:, 1].minimum(place + high + 1)
    return begin, end.maximum(begin)


def _allowed_between(logits: Logits, rows: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    """Return how many keys in [begin, end), each (rows, cells), the mask allows: (b, h, rows, cells)."""
    keys = logits.shape[3]
    begin, end = begin.clamp(0, keys), end.clamp(0, keys)
    allow = logits.allowed(range(int(rows[0]), int(rows[-1]) + 1)) if len(rows) else logits.attention.allow
    if allow is None:
        return (end - begin)[None, None]
    if allow.shape[3] == 1:
        return (end - begin) * allow
    before = F.pad(allow.cumsum(-1, dtype=torch.int32), (1, 0)).expand(-1, -1, len(rows), -1)
    places = (*before.shape[:2], -1, -1)
    return before.gather(-1, end.expand(places)) - before.gather(-1, begin.expand(places))
