"""The inputs of an attention matrix, and its logits: any rectangle of them, computed on request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from clearhead import spec
from clearhead.kernels import in_own_dtype
from clearhead.spec import Attention, divide_heads
from clearhead.spec.band import span

NEG_INF = float("-inf")

# Elements of one block in a pass over the whole matrix: 4 MiB of float32, about one core's share of the cache.
BLOCK = 2**20
MIN_ROWS = 32


@dataclass(frozen=True, slots=True)
class Logits:
    """The logits of all pairs of query and key, not stored. Validated by AttentionMatrix.

    Attributes:
        query: (B, H, L, D).
        key: (B, H_kv, S, D); query head h reads key head h // (H // H_kv).
        attention: everything between Q Kᵀ and the weights; its masks have four axes, each of full size or 1.
    """

    query: Tensor
    key: Tensor
    attention: Attention

    def change(self, **fields: Any) -> Logits:
        """Return a copy with some fields of its attention replaced."""
        return replace(self, attention=replace(self.attention, **fields))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, L, S)."""
        batch, heads, rows, _ = self.query.shape
        return batch, heads, rows, self.key.shape[2]

    @property
    def group(self) -> int:
        """How many query heads share one key head; 1 if there are no heads."""
        return divide_heads(self.query.shape[1], self.key.shape[1])

    @property
    def has_dense_mask(self) -> bool:
        """Whether a mask, rule or bias varies along both L and S; it is then used a few rows at a time."""
        own = self.attention
        return (
            own.rule is not None
            or self.has_dense_bias
            or any(t is not None and t.shape[2] > 1 and t.shape[3] > 1 for t in (own.allow, own.bias))
        )

    @property
    def has_dense_bias(self) -> bool:
        """Whether the sum of bias and key_bias would vary along both L and S."""
        own = self.attention
        return own.key_bias is not None and own.bias is not None and own.bias.shape[2] > 1

    def wide(self) -> Logits:
        """Return the logits in float32 or wider, the dtype of all statistics."""
        dtype = torch.promote_types(self.query.dtype, torch.float32)
        return Logits(self.query.to(dtype), self.key.to(dtype), self.attention.cast(dtype))

    def part(self, rows: slice, cols: slice) -> Logits:
        """Return the logits of some rows and columns, as for a smaller matrix."""
        return Logits(self.query[:, :, rows], self.key[:, :, cols], self.attention.part(rows, cols))

    @in_own_dtype
    def block(self, batch: int, heads: slice, rows: slice | Tensor, cols: slice | Tensor) -> Tensor:
        """Compute the logits of one rectangle.

        Args:
            batch: index of the batch entry.
            heads: query heads, step 1.
            rows, cols: queries and keys, a slice of step 1 or a 1-D tensor of positions.

        Returns:
            (heads, rows, cols), -inf where masked.
        """
        attention = self.attention.batch(slice(batch, batch + 1)).heads(heads).pairs(rows, cols)
        query, key = self.query[batch, heads][:, rows], self._keys(batch, heads)[:, cols]
        scaled = torch.matmul(query, key.transpose(-1, -2)) * attention.multiplier
        indices = (_indices(part, size, scaled) for part, size in zip((rows, cols), scaled.shape[1:], strict=True))
        return spec.logits(attention, scaled[None], *indices)[0]

    @in_own_dtype
    def table(self, rows: slice | Tensor, cols: slice | Tensor) -> Tensor:
        """Compute the logits of one rectangle in every batch entry and head at once; arguments as in `block`.

        Returns:
            (B, H, rows, cols), -inf where masked.
        """
        attention = self.attention.pairs(rows, cols)
        query, key = self.query[:, :, rows], self.key[:, :, cols]
        stacked = query.unflatten(1, (key.shape[1], self.group)).flatten(2, 3)  # the queries that share a key head
        product = torch.matmul(stacked, key.transpose(-1, -2))
        scaled = product.reshape(*query.shape[:3], key.shape[2]) * attention.multiplier
        indices = (_indices(part, size, scaled) for part, size in zip((rows, cols), scaled.shape[2:], strict=True))
        return spec.logits(attention, scaled, *indices)

    def at(self, batch: Tensor, head: Tensor, row: Tensor, col: Tensor) -> Tensor:
        """Compute the logits of N pairs, each given by its four indices: all arguments and the result are (N,)."""
        product = (self.query[batch, head, row] * self.key[batch, head // self.group, col]).sum(-1)
        scaled = product * self.attention.multiplier_of(head)
        return spec.logits_at(self.attention, scaled, batch, head, row, col, self.shape)

    def heads(self, heads: Tensor) -> Logits:
        """Return the logits of some query heads, in any order: (B, len(heads), L, S)."""
        return Logits(self.query[:, heads], self.key[:, heads // self.group], self.attention.heads(heads))

    def batch(self, entries: slice) -> Logits:
        """Return the logits of some batch entries, a slice of step 1."""
        return Logits(self.query[entries], self.key[entries], self.attention.batch(entries))

    def single_head(self, batch: int, head: int) -> Logits:
        """Return the logits of one head of one batch entry: (1, 1, L, S)."""
        entry, which, key = slice(batch, batch + 1), slice(head, head + 1), head // self.group
        attention = self.attention.batch(entry).heads(which)
        return Logits(self.query[entry, which], self.key[entry, key : key + 1], attention)

    def rows_at_once(self, elements: int) -> int:
        """Return how many rows to process at a time, so that their part of a dense mask has `elements` elements."""
        batch, heads, _, keys = self.shape
        own, tables = self.attention, batch * heads
        if own.rule is not None and own.allow is None and own.bias is None:
            tables = spec.rule.tables(own.rule, (batch, heads))
        return max(elements // max(tables * keys, 1), 1)

    def allowed(self, rows: range) -> Tensor | None:
        """Return what some queries may attend, without the band, (B or 1, H or 1, rows or 1, S or 1); None = all."""
        return spec.allowed(self.attention, self.shape, rows, self.query.device)

    def _keys(self, batch: int, heads: slice) -> Tensor:
        """Return the keys of some query heads, (heads, S, D): a view for one head or ungrouped heads, else a copy."""
        if self.group == 1:
            return self.key[batch, heads]
        start, stop, _ = heads.indices(self.shape[1])
        if stop - start == 1:
            own = start // self.group
            return self.key[batch, own : own + 1]
        return self.key[batch, torch.arange(start, stop, device=self.key.device) // self.group]


@dataclass(frozen=True, slots=True)
class Block:
    """One rectangle of a pass over the matrix: `logits` is (heads, rows, cols), with all columns inside the band."""

    batch: int
    heads: slice
    rows: slice
    cols: slice
    logits: Tensor

    def weights(self, lse: Tensor) -> Tensor:
        """Return the weights of the rectangle, given the lse (B, H, L); 0 in a row that may attend nothing."""
        return weigh(self.logits, lse[self.batch, self.heads, self.rows])


def weigh(logits: Tensor, lse: Tensor) -> Tensor:
    """Return exp(logits - lse), with 0 instead of NaN where a row is empty (lse = -inf).

    >>> weigh(torch.tensor([[NEG_INF, NEG_INF]]), torch.tensor([NEG_INF]))
    tensor([[0., 0.]])
    """
    return torch.exp(logits - finite(lse).unsqueeze(-1))


def finite(lse: Tensor) -> Tensor:
    """Return the lse with 0 instead of -inf, so that an empty row gives exp(-inf - 0) = 0."""
    return lse.masked_fill(lse == NEG_INF, 0.0)


def blocks(logits: Logits, *, least: int = 1) -> Iterator[Block]:
    """Iterate over the matrix in rectangles of about BLOCK elements, rows first, without the keys outside the band.

    Args:
        logits: the matrix to iterate over.
        least: the fewest columns of a rectangle (k for top-k).
    """
    batches, heads, rows, keys = logits.shape
    reach = logits.attention.reach
    low, high = reach
    width = keys if low is None or high is None else max(high - low, 0)
    across = min(keys, width + 8 * MIN_ROWS)
    tall = min(max(BLOCK // max(across, 1), MIN_ROWS), rows)
    if across < keys:
        tall = min(tall, max(width, 8 * MIN_ROWS))
    wide = max(BLOCK // max(tall * across, 1), 1)
    # Widths are rounded to eighths of the keys: many different widths fragment the heap (735 MB at 16,384 keys of a
    # causal matrix).
    coarse = 1 if across < keys else max(-(-keys // 8), 1)
    for batch in range(batches):
        for head in range(0, heads, wide):
            which = slice(head, min(head + wide, heads))
            for start in range(0, rows, max(tall, 1)):
                part = slice(start, min(start + tall, rows))
                seen = span(reach, part, slice(0, keys))
                right = min(max(-(-seen.stop // coarse) * coarse, least), keys)
                left = max(min(seen.start // coarse * coarse, right - least), 0)
                cols = slice(left, right)
                yield Block(batch, which, part, cols, logits.block(batch, which, part, cols))


def _indices(where: slice | Tensor, size: int, like: Tensor) -> Tensor:
    """Return the indices that a slice or a tensor selects."""
    if isinstance(where, Tensor):
        return where
    start = where.start or 0
    return torch.arange(start, start + size, device=like.device)
