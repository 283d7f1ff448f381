"""What an attention matrix is made of, and any rectangle of its logits, computed where asked for."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clearhead.kernels import in_own_dtype
from clearhead.kernels.problem import divide_heads
from clearhead.matrix.ruled import Ruled

NEG_INF = float("-inf")

Reach = tuple[int | None, int | None]
ANYWHERE: Reach = (None, None)

# Elements of one rectangle in a pass over the whole matrix: 4 MiB of float32, about one core's share of cache.
BLOCK = 2**20
MIN_ROWS = 32


@dataclass(frozen=True, slots=True)
class Logits:
    """softcap(Q Kᵀ · scale) + bias, masked: everything before the softmax. Validated by AttentionMatrix.

    Attributes:
        query: (B, H, L, D).
        key: (B, H_kv, S, D); query head h reads key head h // (H // H_kv).
        scale: logit multiplier, no unit.
        reach: (low, high): query i may attend key j only where low <= j - i <= high; None = no limit on that side.
        allow: boolean, four axes each of full size or 1, True = may attend; None = everything.
        bias: float, four axes each of full size or 1; None = nothing.
        softcap: logits become softcap·tanh(logits / softcap) before bias and mask; None = off.
        sinks: (H,) extra logits that take weight and give no value; None = none.
        tilt: (B, H, 1, S) added to the logits of each key, apart from `bias`, which it may not be joined to without
            making an L×S table; None = nothing.
        alibi: (H,) slopes: slope · |i + alibi_offset - j| is taken off the logits; None = nothing.
        alibi_offset: the position of query 0 among the keys.
        ruled: where queries may attend, besides `allow`, as a rule no table is made of; None = everywhere.
    """

    query: Tensor
    key: Tensor
    scale: float
    reach: Reach = ANYWHERE
    allow: Tensor | None = None
    bias: Tensor | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    tilt: Tensor | None = None
    alibi: Tensor | None = None
    alibi_offset: int = 0
    ruled: Ruled | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, L, S)."""
        batch, heads, rows, _ = self.query.shape
        return batch, heads, rows, self.key.shape[2]

    @property
    def group(self) -> int:
        """How many query heads share one key head; 1 where there are no heads."""
        return divide_heads(self.query.shape[1], self.key.shape[1])

    @property
    def bilinear(self) -> bool:
        """Whether every logit that is not masked is exactly scale · qᵢ·kⱼ."""
        return self.bias is None and self.softcap is None and self.tilt is None and self.alibi is None

    @property
    def dense_mask(self) -> bool:
        """Whether the caller's own mask or bias varies along both L and S, so that it is met a few rows at a time."""
        tables = (self.allow, self.bias)
        return (
            self.ruled is not None
            or self.dense_tilt
            or any(t is not None and t.shape[2] > 1 and t.shape[3] > 1 for t in tables)
        )

    @property
    def dense_tilt(self) -> bool:
        """Whether bias and tilt, joined, would vary along both L and S."""
        return self.tilt is not None and self.bias is not None and self.bias.shape[2] > 1

    def wide(self) -> "Logits":
        """The same logits in float32 or wider: statistics are computed in it, whatever the model ran in."""
        dtype = torch.promote_types(self.query.dtype, torch.float32)
        if dtype == self.query.dtype:
            return self
        return replace(
            self,
            query=self.query.to(dtype),
            key=self.key.to(dtype),
            bias=None if self.bias is None else self.bias.to(dtype),
            tilt=None if self.tilt is None else self.tilt.to(dtype),
            sinks=None if self.sinks is None else self.sinks.to(dtype),
            alibi=None if self.alibi is None else self.alibi.to(dtype),
        )

    def part(self, rows: slice, cols: slice) -> "Logits":
        """The logits of some rows and columns as a matrix of their own."""

        def cut(tensor: Tensor | None) -> Tensor | None:
            if tensor is None:
                return None
            tensor = tensor[:, :, rows] if tensor.shape[2] > 1 else tensor
            return tensor[:, :, :, cols] if tensor.shape[3] > 1 else tensor

        moved = (rows.start or 0) - (cols.start or 0)
        return replace(
            self,
            query=self.query[:, :, rows],
            key=self.key[:, :, cols],
            reach=_moved(self.reach, moved),
            alibi_offset=self.alibi_offset + moved,
            ruled=None if self.ruled is None else self.ruled.part(rows.start or 0, cols.start or 0),
            allow=cut(self.allow),
            bias=cut(self.bias),
            tilt=cut(self.tilt),
        )

    @in_own_dtype
    def block(self, batch: int, heads: slice, rows: "slice | Tensor", cols: "slice | Tensor") -> Tensor:
        """The logits of one rectangle.

        Args:
            batch: which batch element.
            heads: query heads, step 1.
            rows, cols: queries and keys, a slice of step 1 or a 1-D tensor of positions.

        Returns:
            (heads, rows, cols), -inf where masked.
        """
        query = self.query[batch, heads][:, rows]
        logits = torch.matmul(query, self._keys(batch, heads)[:, cols].transpose(-1, -2)) * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        if self.bias is not None:
            logits = logits + _part(self.bias, batch, heads, rows, cols)
        if self.tilt is not None:
            logits = logits + _part(self.tilt, batch, heads, rows, cols)
        if self.alibi is not None:
            row, col = _positions(rows, logits.shape[1], logits), _positions(cols, logits.shape[2], logits)
            logits = logits - self.alibi[heads, None, None] * (row[:, None] + self.alibi_offset - col).abs()
        if self.allow is not None:
            logits = logits.masked_fill(~_part(self.allow, batch, heads, rows, cols), NEG_INF)
        if self.ruled is not None:
            row, col = _positions(rows, logits.shape[1], logits), _positions(cols, logits.shape[2], logits)
            head = torch.arange(self.shape[1], device=logits.device)[heads, None, None]
            may = self.ruled.at(torch.full_like(head[:1], batch), head, row[:, None], col)
            logits = logits.masked_fill(~may, NEG_INF)
        if self.reach != ANYWHERE:
            row, col = _positions(rows, logits.shape[1], logits), _positions(cols, logits.shape[2], logits)
            logits = logits.masked_fill(outside(self.reach, row[:, None], col), NEG_INF)
        return logits

    def at(self, batch: Tensor, head: Tensor, row: Tensor, col: Tensor) -> Tensor:
        """The logits at N places, each given by its four positions: all arguments and the result are (N,)."""
        logits = (self.query[batch, head, row] * self.key[batch, head // self.group, col]).sum(-1) * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        full = self.shape
        if self.bias is not None:
            logits = logits + self.bias.expand(full)[batch, head, row, col]
        if self.tilt is not None:
            logits = logits + self.tilt.expand(full)[batch, head, row, col]
        if self.alibi is not None:
            logits = logits - self.alibi[head] * (row + self.alibi_offset - col).abs()
        if self.allow is not None:
            logits = logits.masked_fill(~self.allow.expand(full)[batch, head, row, col], NEG_INF)
        if self.ruled is not None:
            logits = logits.masked_fill(~self.ruled.at(batch, head, row, col), NEG_INF)
        return logits if self.reach == ANYWHERE else logits.masked_fill(outside(self.reach, row, col), NEG_INF)

    def heads(self, heads: Tensor) -> "Logits":
        """Some query heads, in any order: (B, len(heads), L, S)."""

        def cut(tensor: Tensor | None) -> Tensor | None:
            return tensor if tensor is None or tensor.shape[1] == 1 else tensor[:, heads]

        return replace(
            self,
            query=self.query[:, heads],
            key=self.key[:, heads // self.group],
            allow=cut(self.allow),
            bias=cut(self.bias),
            tilt=cut(self.tilt),
            sinks=None if self.sinks is None else self.sinks[heads],
            alibi=None if self.alibi is None else self.alibi[heads],
            ruled=None if self.ruled is None else self.ruled.heads(heads),
        )

    def one(self, batch: int, head: int) -> "Logits":
        """One head of one batch element, as a matrix of its own: (1, 1, L, S)."""

        def cut(tensor: Tensor | None) -> Tensor | None:
            if tensor is None:
                return None
            tensor = tensor[batch : batch + 1] if tensor.shape[0] > 1 else tensor
            return tensor[:, head : head + 1] if tensor.shape[1] > 1 else tensor

        own = head // self.group
        return replace(
            self,
            query=self.query[batch : batch + 1, head : head + 1],
            key=self.key[batch : batch + 1, own : own + 1],
            allow=cut(self.allow),
            bias=cut(self.bias),
            tilt=cut(self.tilt),
            sinks=None if self.sinks is None else self.sinks[head : head + 1],
            alibi=None if self.alibi is None else self.alibi[head : head + 1],
            ruled=None if self.ruled is None else self.ruled.one(batch, head),
        )

    def rows_at_once(self, elements: int) -> int:
        """How many rows to take together, so that a table that varies along L and S holds so many elements of them."""
        batch, heads, _, keys = self.shape
        copies = batch * heads
        if self.ruled is not None and self.allow is None and self.bias is None:
            copies = self.ruled.copies(batch)
        return max(elements // max(copies * keys, 1), 1)

    def allowed(self, rows: range) -> Tensor | None:
        """(B or 1, H or 1, rows or 1, S or 1), bool: what some queries may attend, reach aside; None = everything."""
        allow = self.allow
        if allow is not None and allow.shape[2] > 1:
            allow = allow[:, :, rows.start : rows.stop]
        strip = None if self.ruled is None else self.ruled.strip(self.shape[0], rows, self.shape[3])
        return strip if allow is None else allow if strip is None else allow & strip

    def _keys(self, batch: int, heads: slice) -> Tensor:
        """(heads, S, D): a view for one head or where heads are not shared, else a copy."""
        if self.group == 1:
            return self.key[batch, heads]
        start, stop, _ = heads.indices(self.shape[1])
        if stop - start == 1:
            own = start // self.group
            return self.key[batch, own : own + 1]
        return self.key[batch, torch.arange(start, stop, device=self.key.device) // self.group]


@dataclass(frozen=True, slots=True)
class Block:
    """One rectangle on the way through a whole matrix: `logits` is (heads, rows, cols), all columns that matter."""

    batch: int
    heads: slice
    rows: slice
    cols: slice
    logits: Tensor

    def weights(self, lse: Tensor) -> Tensor:
        """The rectangle after the softmax, from the (B, H, L) log-sum-exp; 0 in a row that may attend nothing."""
        return weigh(self.logits, lse[self.batch, self.heads, self.rows])


def weigh(logits: Tensor, lse: Tensor) -> Tensor:
    """exp(logits - lse), with 0 where a row is empty (lse = -inf) instead of NaN.

    >>> weigh(torch.tensor([[NEG_INF, NEG_INF]]), torch.tensor([NEG_INF]))
    tensor([[0., 0.]])
    """
    return torch.exp(logits - finite(lse).unsqueeze(-1))


def finite(lse: Tensor) -> Tensor:
    """The log-sum-exp with 0 in place of -inf, so that an empty row gives exp(-inf - 0) = 0."""
    return lse.masked_fill(lse == NEG_INF, 0.0)


def outside(reach: Reach, row: Tensor, col: Tensor) -> Tensor:
    """Whether a key lies beyond a query's reach, for positions that broadcast: bool.

    >>> outside((-1, 0), torch.tensor([[0], [2]]), torch.arange(4)).tolist()
    [[False, True, True, True], [True, False, False, True]]
    """
    low, high = reach
    apart = col - row
    found = torch.zeros((), dtype=torch.bool, device=apart.device)
    if low is not None:
        found = found | (apart < low)
    if high is not None:
        found = found | (apart > high)
    return found


def narrowed(reach: Reach, other: Reach) -> Reach:
    """Both reaches together.

    >>> narrowed((None, 0), (-3, 3))
    (-3, 0)
    """
    lows = [low for low in (reach[0], other[0]) if low is not None]
    highs = [high for high in (reach[1], other[1]) if high is not None]
    return max(lows, default=None), min(highs, default=None)


def span(reach: Reach, rows: slice, cols: slice) -> slice:
    """The keys of `cols` that some of the rows may attend, by reach alone: from the first to behind the last.

    >>> span((-2, 0), slice(4, 6), slice(0, 100))
    slice(2, 6, None)
    """
    low, high = reach
    left = cols.start if low is None else max(cols.start, min(rows.start + low, cols.stop))
    right = cols.stop if high is None else min(cols.stop, rows.stop + high)
    return slice(left, max(right, left))


def blocks(logits: Logits, *, least: int = 1) -> Iterator[Block]:
    """Walk the matrix in rectangles of about BLOCK elements, rows first; what lies out of reach is left out.

    Args:
        logits: what to walk.
        least: columns each rectangle has at least (for top-k, that there are k to choose from).
    """
    batches, heads, rows, keys = logits.shape
    low, high = logits.reach
    width = keys if low is None or high is None else max(high - low, 0)
    across = min(keys, width + 8 * MIN_ROWS)
    tall = min(max(BLOCK // max(across, 1), MIN_ROWS), rows)
    if across < keys:
        tall = min(tall, max(width, 8 * MIN_ROWS))
    wide = max(BLOCK // max(tall * across, 1), 1)
    # In eighths: blocks of many widths, freed between small answers, leave holes nothing fits in (735 MB at 16,384
    # keys of a causal matrix).
    coarse = 1 if across < keys else max(-(-keys // 8), 1)
    for batch in range(batches):
        for head in range(0, heads, wide):
            which = slice(head, min(head + wide, heads))
            for start in range(0, rows, max(tall, 1)):
                some = slice(start, min(start + tall, rows))
                seen = span(logits.reach, some, slice(0, keys))
                right = min(max(-(-seen.stop // coarse) * coarse, least), keys)
                left = max(min(seen.start // coarse * coarse, right - least), 0)
                cols = slice(left, right)
                yield Block(batch, which, some, cols, logits.block(batch, which, some, cols))


def _moved(reach: Reach, by: int) -> Reach:
    """A reach, as seen from a part that starts `by` rows further down than across."""
    low, high = reach
    return None if low is None else low + by, None if high is None else high + by


def _part(tensor: Tensor, batch: int, heads: slice, rows: "slice | Tensor", cols: "slice | Tensor") -> Tensor:
    """A rectangle of a mask or bias; an axis of size 1 serves every position."""
    tensor = tensor[batch if tensor.shape[0] > 1 else 0]
    tensor = tensor[heads] if tensor.shape[0] > 1 else tensor
    tensor = tensor[:, rows] if tensor.shape[1] > 1 else tensor
    return tensor[:, :, cols] if tensor.shape[2] > 1 else tensor


def _positions(where: "slice | Tensor", size: int, like: Tensor) -> Tensor:
    if isinstance(where, Tensor):
        return where
    start = where.start or 0
    return torch.arange(start, start + size, device=like.device)
