"""A mask that stays a rule inside a matrix: evaluated where it is asked for, a rectangle at a time."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clearhead.masks import BlockState, Mask
from clearhead.masks.mask import in_pieces


@dataclass(frozen=True, slots=True)
class Ruled:
    """One of clearhead.masks, as seen from a matrix or a part of one.

    Attributes:
        mask: the rule, of the whole matrix it was made for.
        head: (H,), int64: which of its heads each head here is.
        batch, row, col: its position of batch entry 0, query 0 and key 0 here.
    """

    mask: Mask
    head: Tensor
    batch: int = 0
    row: int = 0
    col: int = 0

    def at(self, batch: Tensor, head: Tensor, row: Tensor, col: Tensor) -> Tensor:
        """Whether a query may attend a key, for positions that broadcast: bool, of their joint shape or less."""
        return self.mask.rule(batch + self.batch, self.head[head], row + self.row, col + self.col)

    def strip(self, batches: int, rows: range, keys: int) -> Tensor | None:
        """(B or 1, H or 1, rows, S): what some queries may attend; None = everything."""
        seen = (range(r.start + o, r.stop + o) for r, o in ((rows, self.row), (range(keys), self.col)))
        if self.mask.state(*seen) is BlockState.FULL:
            return None
        device = self.head.device
        of_batch, of_head, *_ = self.mask.sizes()
        b = torch.arange(1 if of_batch is None else batches, device=device).view(-1, 1, 1, 1)
        h = torch.arange(1 if of_head is None else len(self.head), device=device).view(1, -1, 1, 1)
        q = torch.arange(rows.start, rows.stop, device=device).view(1, 1, -1, 1)
        k = torch.arange(keys, device=device).view(1, 1, 1, -1)
        found = in_pieces(lambda some: self.at(b, h, some, k), q, b.numel() * h.numel() * keys)
        return found.expand(*found.shape[:2], len(rows), keys)

    def copies(self, batches: int) -> int:
        """How many tables of queries and keys the rule is: one, or one a batch entry, head or both."""
        of_batch, of_head, *_ = self.mask.sizes()
        return (1 if of_batch is None else batches) * (1 if of_head is None else len(self.head))

    def part(self, row: int, col: int) -> "Ruled":
        """As seen from a part whose first query and key stand there."""
        return replace(self, row=self.row + row, col=self.col + col)

    def heads(self, heads: Tensor) -> "Ruled":
        """As seen from some heads, in any order."""
        return replace(self, head=self.head[heads])

    def one(self, batch: int, head: int) -> "Ruled":
        """As seen from one head of one batch element."""
        return replace(self, head=self.head[head : head + 1], batch=self.batch + batch)
