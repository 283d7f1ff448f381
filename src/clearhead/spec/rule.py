"""Masks as rules that are evaluated in blocks, and a rule restricted to some heads, batch entries or positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol

import torch
from torch import Tensor

PIECE = 1 << 18  # how many entries of a rule are evaluated at a time
Sizes = tuple[int | None, int | None, int | None, int | None]  # B, H, L, S; None = any


class BlockState(Enum):
    """How much of a block of queries × keys is allowed. MIXED is always correct; EMPTY and FULL save work."""

    EMPTY = "empty"
    FULL = "full"
    MIXED = "mixed"


class Rule(Protocol):
    """Where queries may attend, as a function of positions. clearhead.masks.Mask implements it."""

    def rule(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """Return whether query q may attend key k: bool, of the indices' broadcast shape or one that expands to it."""

    def state(self, rows: range, cols: range) -> BlockState:
        """Return whether a block is EMPTY, FULL or MIXED over every batch entry and head."""

    def sizes(self) -> Sizes:
        """Return the B, H, L, S that the rule requires; None where any size is accepted."""

    @property
    def bias(self) -> Any:
        """The bias that comes with the rule; None for most rules."""


@dataclass(frozen=True, slots=True, eq=False)
class RulePart:
    """A rule as seen from some heads and batch entries of the attention it was made for.

    Attributes:
        whole: the rule.
        heads: int64, for each head here its index in the whole; None = the same.
        first_batch: the index in the whole of batch entry 0 here.
        shift: position in the whole minus position here, for queries.
    """

    whole: Rule
    heads: Tensor | None = None
    first_batch: int = 0
    shift: int = 0

    def rule(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return self.whole.rule(b + self.first_batch, h if self.heads is None else self.heads[h], q + self.shift, k)

    def state(self, rows: range, cols: range) -> BlockState:
        return self.whole.state(range(rows.start + self.shift, rows.stop + self.shift), cols)

    def sizes(self) -> Sizes:
        batch, heads, length, keys = self.whole.sizes()
        return batch, heads, None if length is None else length - self.shift, keys

    @property
    def bias(self) -> Any:
        return self.whole.bias


def part(rule: Rule | None, *, heads: Tensor | None = None, first_batch: int = 0, shift: int = 0) -> Rule | None:
    """Return the rule for some query heads, in any order, from a later batch entry, or at other query positions."""
    if rule is None or (heads is None and first_batch == 0 and shift == 0):
        return rule
    own = rule if isinstance(rule, RulePart) else RulePart(rule)
    if heads is not None and own.heads is not None:
        heads = own.heads[heads]
    return replace(
        own,
        heads=own.heads if heads is None else heads,
        first_batch=own.first_batch + first_batch,
        shift=own.shift + shift,
    )


def block(
    rule: Rule, sizes: tuple[int, int], rows: range, cols: range, device: torch.device | str | None = None
) -> Tensor | None:
    """Evaluate a rule for a block: bool (B or 1, H or 1, rows, cols); None if the block is FULL.

    Args:
        sizes: (B, H) of the attention.
        rows, cols: positions of queries and keys.
    """
    if rule.state(rows, cols) is BlockState.FULL:
        return None
    of_batch, of_heads, *_ = rule.sizes()
    b, h, q, k = indices(
        1 if of_batch is None else sizes[0], 1 if of_heads is None else sizes[1], rows, cols, device=device
    )
    table = in_pieces(lambda part: rule.rule(b, h, part, k), q, b.numel() * h.numel() * len(cols))
    return table.expand(*table.shape[:2], len(rows), len(cols))


def indices(
    batch: int, heads: int, rows: range, cols: range, *, device: torch.device | str | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the indices (b, h, q, k) of a block, int64, which broadcast to (batch, heads, rows, cols)."""
    return (
        torch.arange(batch, device=device).view(-1, 1, 1, 1),
        torch.arange(heads, device=device).view(1, -1, 1, 1),
        torch.arange(rows.start, rows.stop, device=device).view(1, 1, -1, 1),
        torch.arange(cols.start, cols.stop, device=device).view(1, 1, 1, -1),
    )


def tables(rule: Rule, sizes: tuple[int, int]) -> int:
    """Return how many L×S tables the rule evaluates to: 1, or one for each batch entry, head or both."""
    of_batch, of_heads, *_ = rule.sizes()
    return (1 if of_batch is None else sizes[0]) * (1 if of_heads is None else sizes[1])


def in_pieces(rule: Callable[[Tensor], Tensor], q: Tensor, entries: int) -> Tensor:
    """Evaluate a rule a few queries at a time, because int64 positions take eight times the memory of the bool result.

    Args:
        rule: returns the mask of queries (1, 1, n, 1).
        q: (1, 1, L, 1), all query positions.
        entries: how many mask entries one query has.
    Returns:
        bool, four axes; the third has size 1 where the rule does not depend on queries.
    """
    step = max(PIECE // max(entries, 1), 2)
    whole = torch.compiler.is_compiling() or q.shape[2] <= step
    parts = []
    for piece in [q] if whole else q.split(step, 2):
        answer = rule(piece)
        parts.append(answer.view((1,) * (4 - answer.dim()) + tuple(answer.shape)))
        if parts[0].shape[2] == 1:
            break
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)
