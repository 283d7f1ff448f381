"""Store the keys of many calls of one module once, if they come from one KV cache.

A growing cache begins with its earlier keys, so all its steps share one tensor. Beam search also reorders the rows of
the batch, a sliding window drops its oldest keys, and assisted decoding takes tokens back. Then most keys of a step are
keys of the step before, in other rows or positions: only the new ones are stored, and the rest is assembled on use.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(slots=True)
class Keys:
    """The keys of one step of a cache, or of all steps that only grew.

    Attributes:
        held: (B, H_kv, S, D); None if they are assembled from `chain`.
        seen: (B or 1, S) boolean, the keys that a query of some step may attend to; None = all.
        chain: the changes from step to step of a cache that does not only grow; None for one that does.
        place: the number of changes of the chain that lead to these keys.
    """

    held: Tensor | None
    seen: Tensor | None = None
    chain: Chain | None = None
    place: int = 0

    @property
    def tensor(self) -> Tensor:
        """(B, H_kv, S, D)."""
        if self.held is not None:
            return self.held
        assert self.chain is not None  # noqa: S101 (keys that are not held are of a chain)
        return self.chain.keys(self.place)

    @property
    def change(self) -> Change | None:
        """The change from the keys of the step before; None if they only grew, or begin a chain."""
        return None if self.chain is None or not self.place else self.chain.changes[self.place - 1]

    def grow(self, later: Keys) -> None:
        """Hold a later step's keys, which begin with these."""
        if later.seen is not None:
            old = torch.ones_like(self.tensor[:1, 0, :, 0], dtype=torch.bool) if self.seen is None else self.seen
            later.seen = later.seen | F.pad(old, (0, later.tensor.shape[2] - old.shape[1]))
        self.held, self.seen = later.tensor, later.seen

    def follow(self, earlier: Keys, queries: int) -> bool:
        """Store only the changes since an earlier step's keys, if at most half of the keys changed. Return whether.

        Args:
            earlier: the keys of the call before.
            queries: the number of queries of this call; as many keys have left a full window.
        """
        before, now = earlier.tensor, self.tensor
        change = _change(before, now, queries)
        if change is None:
            return False
        self.chain = Chain(before) if earlier.chain is None else earlier.chain
        self.chain.changes.append(change)
        self.place, self.seen = len(self.chain.changes), None
        if earlier.chain is not None:
            earlier.held = None  # the first of a chain is its root
        return True


@dataclass(frozen=True, slots=True)
class Change:
    """One step's keys as changes to those of the step before.

    Attributes:
        rows: (B,), the row of the earlier batch that each row comes from.
        shift: key j was key j + shift.
        places: (n,), the positions of new keys.
        values: (B, H_kv, n, D), the new keys.
        size: S.
    """

    rows: Tensor
    shift: int
    places: Tensor
    values: Tensor
    size: int


@dataclass(slots=True)
class Chain:
    """The first keys of a cache, and how they changed from step to step."""

    root: Tensor
    changes: list[Change] = field(default_factory=list)

    def keys(self, place: int) -> Tensor:
        """Return (B, H_kv, S, D) after `place` changes: each key from the step in which it was new."""
        last = self.changes[place - 1]
        batch, heads, _, width = last.values.shape
        device = self.root.device
        whole = self.root.new_empty(batch, heads, last.size, width)
        rows, missing = torch.arange(batch, device=device), torch.arange(last.size, device=device)
        where = missing
        for change in reversed(self.changes[:place]):
            slot = torch.full((change.size,), -1, device=device)
            slot[change.places] = torch.arange(len(change.places), device=device)
            slots = slot[where]
            new = slots >= 0
            whole[:, :, missing[new]] = change.values[rows][:, :, slots[new]]
            missing, where, rows = missing[~new], where[~new] + change.shift, change.rows[rows]
        whole[:, :, missing] = self.root[rows][:, :, where]
        return whole


def _change(before: Tensor, now: Tensor, queries: int) -> Change | None:
    """Return the change from the keys of the step before, (B, H, S, D); None if more than half of them are new."""
    if before.dtype != now.dtype or before.device != now.device:
        return None
    if (before.shape[1], before.shape[3]) != (now.shape[1], now.shape[3]):
        return None
    dropped = before.shape[2] + queries - now.shape[2]
    best: tuple[int, Tensor, Tensor] | None = None
    for shift in (0, dropped) if 0 < dropped < before.shape[2] else (0,):
        shared = min(now.shape[2], before.shape[2] - shift)
        rows, alike = _rows(before[:, :, shift : shift + shared], now[:, :, :shared])
        new = torch.ones(now.shape[2], dtype=torch.bool, device=now.device)
        new[:shared] = ~alike
        if best is None or int(new.sum()) < len(best[2]):
            best = (shift, rows, new.nonzero().flatten())
    if best is None or 2 * len(best[2]) > now.shape[2]:
        return None
    shift, rows, places = best
    return Change(rows, shift, places, now[:, :, places], now.shape[2])


def _rows(before: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
    """Return ((B,), (S,)): the row of `before` most like each row of `now`, and the keys where all rows then agree."""
    rows = torch.arange(len(now), device=now.device)
    if len(before) == len(now):
        alike = (before == now).flatten(0, 1).transpose(0, 1).flatten(1).all(-1)
        if bool(alike.all()):
            return rows, alike
    same = torch.stack([(before == row).all(-1).all(1) for row in now])  # (B, B_before, S)
    count = same.sum(-1)
    if len(before) == len(now):
        count = 2 * count + torch.eye(len(now), dtype=count.dtype, device=count.device)  # of several alike, itself
    rows = count.argmax(-1)
    return rows, same[torch.arange(len(now), device=now.device), rows].all(0)
