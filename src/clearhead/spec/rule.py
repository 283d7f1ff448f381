"""Masks that stay rules: what a rule answers, and the part of one that belongs to some heads or batch entries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol

import torch
from torch import Tensor

PIECE = 1 << 18  # entries of a rule that are evaluated at a time
Sizes = tuple[int | None, int | None, int | None, int | None]


class BlockState(Enum):
    """What a mask says of a block of queries × keys. MIXED is always a true answer; the others save work."""

    EMPTY = "empty"
    FULL = "full"
    MIXED = "mixed"


class Rule(Protocol):
    """Where queries may attend, by positions. clearhead.masks.Mask is one."""

    def rule(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """Whether query q may attend key k, for index tensors that broadcast: bool, of their joint shape or less."""

    def state(self, rows: range, cols: range) -> BlockState:
        """Say of a block whether it is EMPTY, FULL or MIXED, for every batch entry and head at once."""

    def sizes(self) -> Sizes:
        """The B, H, L, S the rule was made for; None where any will do."""

    @property
    def bias(self) -> Any:
        """What the rule adds to the logits; None for most."""


@dataclass(frozen=True, slots=True, eq=False)
class RulePart:
    """A rule as seen from some heads and batch entries of the attention it was made for.

    Attributes:
        whole: the rule.
        heads: int64, which of its heads each head here is; None = the same.
        first_batch: which of its batch entries entry 0 here is.
        shift: what its query positions are ahead of the positions here.
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
    """The rule as seen from some query heads, in any order, from a later batch entry, or at other query positions."""
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
    b = torch.arange(1 if of_batch is None else sizes[0], device=device).view(-1, 1, 1, 1)
    h = torch.arange(1 if of_heads is None else sizes[1], device=device).view(1, -1, 1, 1)
    q = torch.arange(rows.start, rows.stop, device=device).view(1, 1, -1, 1)
    k = torch.arange(cols.start, cols.stop, device=device).view(1, 1, 1, -1)
    table = in_pieces(lambda part: rule.rule(b, h, part, k), q, b.numel() * h.numel() * len(cols))
    return table.expand(*table.shape[:2], len(rows), len(cols))


def tables(rule: Rule, sizes: tuple[int, int]) -> int:
    """How many L×S tables a rule is: 1, or one for each batch entry, head or both."""
    of_batch, of_heads, *_ = rule.sizes()
    return (1 if of_batch is None else sizes[0]) * (1 if of_heads is None else sizes[1])


def in_pieces(rule: Callable[[Tensor], Tensor], q: Tensor, entries: int) -> Tensor:
    """Evaluate a rule some queries at a time: positions take eight times the memory of the answer.

    Args:
        rule: gives the answer for queries (1, 1, n, 1).
        q: (1, 1, L, 1), all of them.
        entries: how many answers there are for one query.
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
