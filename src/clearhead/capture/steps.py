"""What a record keeps of one call of an attention module, or says of one that it does not keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from clearhead.capture.generation.cached_keys import Keys
from clearhead.capture.positions import Positions
from clearhead.matrix import AttentionMatrix
from clearhead.spec import Attention


@dataclass(frozen=True, slots=True)
class Missed:
    """An attention module that ran and was not recorded: its name, and why."""

    name: str
    reason: str


@dataclass(slots=True)
class Step:
    """One call: everything but the keys, and the keys it shares with other steps of one cache.

    Attributes:
        make: builds the matrix from its keys.
        keys: the keys of this step and of those that grew out of it.
        size: how many of them this step had.
        queries: how many queries it had.
        attention: everything else between them and the weights; None of a given matrix.
        query: (B, H, queries, D), where the step knows no values; None of a given matrix.
        positions: of its queries and keys; None: as `assumed` gives them.
    """

    make: Callable[[Tensor], AttentionMatrix]
    keys: Keys
    size: int
    queries: int = 0
    attention: Attention | None = None
    query: Tensor | None = None
    positions: Positions | None = None
    _made: tuple[Tensor, AttentionMatrix] | None = None

    def matrix(self) -> AttentionMatrix:
        """The matrix; the same object until the cache grows, so that its computed statistics are kept.

        Where its keys have to be assembled first, it is a new object each time: kept, all would take T² of keys.
        """
        if self.keys.held is None:
            self._made = None
            return self.make(self.keys.tensor[:, :, : self.size])
        if self._made is None or self._made[0] is not self.keys.tensor:
            self._made = (self.keys.tensor, self.make(self.keys.tensor[:, :, : self.size]))
        return self._made[1]

    def grew_into(self, later: Step) -> bool:
        """Whether a later call's keys begin with this one's, as a cache's do; then both can share the later's tensor.

        Keys that no query so far may attend to may differ: a static cache fills them in later.
        """
        if self.keys.chain is not None:
            return False
        old, new = self.keys.tensor[:, :, : self.size], later.keys.tensor
        if old.dtype != new.dtype or old.shape[:2] != new.shape[:2] or not self.size <= new.shape[2]:
            return False
        other = (old != new[:, :, : self.size]).any(-1).any(1)
        return not bool((other if self.keys.seen is None else other & self.keys.seen).any())
