"""Exact statistics of rows and columns, from forward passes where an identity allows, else one blockwise pass."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from clearhead.errors import DtypeError, ShapeError
from clearhead.matrix import products
from clearhead.matrix.logits import BLOCK, NEG_INF, Block, Logits, blocks, finite, weigh
from clearhead.spec import EVERYWHERE
from clearhead.spec.band import intersect, outside, shift
from clearhead.spec.validation import broadcasts


def rowwise(
    logits: Logits,
    reduce: Callable[[Block], tuple[Tensor, ...]],
    *,
    least: int = 1,
    dtypes: tuple[torch.dtype | None, ...] = (None,),
) -> tuple[Tensor, ...]:
    """Reduce every row: `reduce` maps a block to tensors (heads, rows, ...); the results are (B, H, L, ...).

    Args:
        logits: the matrix.
        reduce: the reduction of one block.
        least: the fewest columns of a block; k for a reduction to k columns.
        dtypes: the dtypes of `reduce`'s results, for a matrix without rows; None is that of the logits.
    """
    batches = logits.shape[0]
    if no_rows(logits):
        kept = (least,) if least > 1 or len(dtypes) > 1 else ()
        return tuple(logits.query.new_empty(*logits.shape[:3], *kept, dtype=dtype) for dtype in dtypes)
    parts: dict[tuple[int, int], list[tuple[Tensor, ...]]] = {}
    for block in blocks(logits, least=least):
        parts.setdefault((block.batch, block.heads.start), []).append(reduce(block))
    starts = sorted({head for _, head in parts})

    def join(which: int) -> Tensor:
        rows = {place: torch.cat([piece[which] for piece in pieces], dim=1) for place, pieces in parts.items()}
        return torch.stack([torch.cat([rows[batch, head] for head in starts]) for batch in range(batches)])

    return tuple(join(which) for which in range(len(next(iter(parts.values()))[0])))


def no_rows(logits: Logits) -> bool:
    """Return whether the matrix has no rows: no batch entry, no head or no query."""
    return 0 in logits.shape[:3]


def entropy(logits: Logits, lse: Tensor) -> Tensor:
    """Return -Σⱼ a·log a, (B, H, L), in nats. For bilinear logits, Σⱼ a·logit = s·qᵢ·(A@K)ᵢ: one forward pass."""
    if logits.attention.is_bilinear:
        mean_key, _, mass = products.forward(logits, logits.key, lse)
        expected = (logits.query * logits.attention.multiplier * mean_key).sum(-1)
        return (mass * finite(lse) - expected).clamp_min(0.0)

    def reduce(block: Block) -> tuple[Tensor, ...]:
        surprise = lse[block.batch, block.heads, block.rows].unsqueeze(-1) - block.logits
        return ((block.weights(lse) * surprise.masked_fill(block.logits == NEG_INF, 0.0)).sum(-1),)

    return rowwise(logits, reduce)[0]


def squared(logits: Logits, lse: Tensor) -> Tensor:
    """Return Σⱼ a², (B, H, L). For bilinear logits it is exp(lse(2s) - 2·lse(s)): one pass at twice the scale."""
    if logits.attention.is_bilinear:
        twice = logits.change(scale=2 * logits.attention.scale, sinks=None)
        return torch.exp(products.normaliser(twice) - 2 * finite(lse))
    return rowwise(logits, lambda block: ((block.weights(lse) ** 2).sum(-1),))[0]


def maximum(logits: Logits, lse: Tensor) -> Tensor:
    """Return the largest weight of each row, (B, H, L)."""
    if logits.shape[3] == 0:
        return torch.zeros_like(lse)
    best = rowwise(logits, lambda block: (block.logits.amax(-1),))[0]
    return torch.exp(best - finite(lse))


def received(logits: Logits, lse: Tensor) -> Tensor:
    """Return the column sums Σᵢ aᵢⱼ, (B, H, S)."""
    ones = logits.query.new_ones(*logits.shape[:3], 1)
    return products.transposed(logits, lse, ones).squeeze(-1)


def topk(logits: Logits, lse: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest weights of each row and their keys, both (B, H, L, k), largest first."""

    def reduce(block: Block) -> tuple[Tensor, ...]:
        best, keys = block.logits.topk(k, dim=-1)
        return best, keys + block.cols.start

    best, keys = rowwise(logits, reduce, least=k, dtypes=(None, torch.int64))
    return torch.exp(best - finite(lse).unsqueeze(-1)), keys


def mean_distance(logits: Logits, lse: Tensor, offset: int) -> Tensor:
    """Return Σⱼ aᵢⱼ·|i + offset - j|, (B, H, L), in positions.

    For a strip of rows, the distance is linear in j left and right of the strip's own positions, so a product with two
    columns gives it without cancellation. The square around the diagonal is computed densely.
    """
    if no_rows(logits):
        return logits.query.new_zeros(logits.shape[:3])
    _, _, rows, keys = logits.shape
    step = max(math.isqrt(BLOCK // 4), 1)
    parts = []
    for start in range(0, rows, step):
        part = slice(start, min(start + step, rows))
        left, right = (min(max(place + offset, 0), keys) for place in (part.start, part.stop))
        total = _distance_beside(logits, lse, part, slice(0, left), offset)
        total = total + _distance_beside(logits, lse, part, slice(right, keys), offset)
        parts.append(total + _distance_around(logits, lse, part, slice(left, right), offset))
    return torch.cat(parts, dim=2)


def _distance_beside(logits: Logits, lse: Tensor, rows: slice, cols: slice, offset: int) -> Tensor:
    """Return Σ aᵢⱼ·|i + offset - j|, (B, H, rows), over columns that are on one side of every row's own position."""
    batches, heads, _, _ = logits.shape
    if cols.stop <= cols.start:
        return logits.query.new_zeros(batches, heads, rows.stop - rows.start)
    like = logits.query
    on_left = cols.start == 0 and cols.stop <= rows.start + offset
    edge = cols.stop if on_left else cols.start
    from_edge = (torch.arange(cols.start, cols.stop, device=like.device) - edge).abs().to(like.dtype)
    to_edge = (torch.arange(rows.start, rows.stop, device=like.device) + offset - edge).abs().to(like.dtype)
    columns = torch.stack([torch.ones_like(from_edge), from_edge], dim=-1).expand(*logits.key.shape[:2], -1, -1)
    mass, beyond = products.partial(logits, columns, lse, rows, cols).unbind(-1)
    return mass * to_edge + beyond


def _distance_around(logits: Logits, lse: Tensor, rows: slice, cols: slice, offset: int) -> Tensor:
    """Return Σ aᵢⱼ·|i + offset - j|, (B, H, rows), over a small square."""
    batches, heads, _, _ = logits.shape
    if cols.stop <= cols.start:
        return logits.query.new_zeros(batches, heads, rows.stop - rows.start)
    answers = []
    for batch in range(batches):
        for head in range(heads):
            which = slice(head, head + 1)
            block = Block(batch, which, rows, cols, logits.block(batch, which, rows, cols))
            answers.append((block.weights(lse) * _distances(block, offset).abs()).sum(-1))
    return torch.cat(answers).unflatten(0, (batches, heads))


def distance_spread(logits: Logits, lse: Tensor, offset: int) -> Tensor:
    """Return the standard deviation of |i + offset - j| under each row's weights, (B, H, L), in positions."""

    def reduce(block: Block) -> tuple[Tensor, ...]:
        away, weights = _distances(block, offset).abs().to(lse.dtype), block.weights(lse)
        mass = weights.sum(-1)
        share = mass.masked_fill(mass == 0, 1.0)
        around = away - ((weights * away).sum(-1) / share).unsqueeze(-1)
        variance = (weights * around**2).sum(-1) / share
        # sqrt has no derivative at 0, where all weight is at one distance, up to rounding.
        flat = variance <= torch.finfo(variance.dtype).eps ** 2
        return (variance.masked_fill(flat, 1.0).sqrt().masked_fill(flat, 0.0),)

    return rowwise(logits, reduce)[0]


def mass_within(logits: Logits, lse: Tensor, window: int, offset: int) -> Tensor:
    """Return Σ aᵢⱼ over |i + offset - j| <= window, (B, H, L); only the band is computed."""
    near = logits.change(**within(logits, window, offset))
    return rowwise(near, lambda block: (block.weights(lse).sum(-1),))[0]


def within(logits: Logits, window: int, offset: int) -> dict[str, int | None]:
    """Return the band of keys j with |i + offset - j| <= window, as fields of the attention."""
    own = logits.attention
    low, high = shift(intersect(own.reach, (offset - window, offset + window)), -own.offset)
    return {"band_low": low, "band_high": high}


def mass_on(logits: Logits, lse: Tensor, keys: Tensor) -> Tensor:
    """Return Σ aᵢⱼ over some keys j, (B, H, L); only those columns are computed."""
    if no_rows(logits):
        return logits.query.new_zeros(logits.shape[:3])
    batches, heads, rows, _ = logits.shape
    every = slice(0, heads)
    maps = []
    for batch in range(batches):
        parts = [logits.query.new_zeros(heads, rows)]
        for part in keys.split(64):
            block = logits.block(batch, every, slice(0, rows), part)
            parts.append(weigh(block, lse[batch]).sum(-1))
        maps.append(torch.stack(parts).sum(0))
    return torch.stack(maps)


def mass_where(logits: Logits, lse: Tensor, where: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
    """Return Σ aᵢⱼ over the keys for which `where(batch, rows, keys)`, boolean (rows, keys), is true: (B, H, L)."""

    def reduce(block: Block) -> tuple[Tensor, ...]:
        device = block.logits.device
        rows = torch.arange(block.rows.start, block.rows.stop, device=device)
        cols = torch.arange(block.cols.start, block.cols.stop, device=device)
        met = where(block.batch, rows, cols)
        _check_condition(met, len(rows), len(cols))
        return (block.weights(lse).masked_fill(~met, 0.0).sum(-1),)

    return rowwise(logits, reduce)[0]


def _check_condition(met: Tensor, rows: int, cols: int) -> None:
    """Check the answer of a caller's condition on pairs of rows and keys.

    Raises:
        DtypeError, ShapeError: it is not a boolean tensor that broadcasts to (rows, cols).
    """
    if not isinstance(met, Tensor) or met.dtype != torch.bool:
        given = met.dtype if isinstance(met, Tensor) else f"a {type(met).__name__}"
        raise DtypeError(f"where returned {given}, expected a boolean tensor (rows, keys), as keys < rows[:, None].")
    if not broadcasts(met.shape, (rows, cols)):
        raise ShapeError(
            f"where returned shape {tuple(met.shape)} for {rows} rows and {cols} keys, expected {(rows, cols)}. "
            f"Both arguments have one axis: give the rows a second one, as in keys < rows[:, None]."
        )


def visible(logits: Logits) -> Tensor:
    """Return how many keys each row may attend to: int64, (B, H, L)."""
    batches, heads, rows, keys = logits.shape
    row = torch.arange(rows, device=logits.query.device)
    if no_rows(logits):
        return torch.zeros(logits.shape[:3], dtype=torch.int64, device=logits.query.device)
    if logits.attention.allow is None and logits.attention.rule is None:
        low, high = logits.attention.reach
        first = torch.zeros_like(row) if low is None else (row + low).clamp(0, keys)
        last = torch.full_like(row, keys) if high is None else (row + high + 1).clamp(0, keys)
        return (last - first).clamp_min(0).expand(batches, heads, rows)
    counts = []
    # A mask with one row for all queries still gives different counts if there is also a band. A mask that all heads
    # share is counted once.
    own = logits.attention.allow
    tables = batches * heads if own is None or logits.attention.rule is not None else own.shape[0] * own.shape[1]
    step = max(BLOCK // max(tables * keys, 1), 1)
    for start in range(0, rows, step):
        allow = logits.allowed(range(start, min(start + step, rows)))
        part = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=row.device) if allow is None else allow
        part = part.expand(*part.shape[:2], min(step, rows - start), keys)
        if logits.attention.reach != EVERYWHERE:
            part = part & ~outside(
                logits.attention.reach, row[start : start + step, None], torch.arange(keys, device=row.device)
            )
        counts.append(part.sum(-1))
    return torch.cat(counts, dim=-1).expand(batches, heads, rows)


def _distances(block: Block, offset: int) -> Tensor:
    """Return the distances i + offset - j, (rows, cols)."""
    device = block.logits.device
    rows = torch.arange(block.rows.start, block.rows.stop, device=device) + offset
    return rows[:, None] - torch.arange(block.cols.start, block.cols.stop, device=device)
