"""Step and Missed: a recorded call of an attention module, and a call that was not recorded."""

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
    """An attention module that ran but was not recorded: its name, and the reason."""

    name: str
    reason: str


@dataclass(slots=True)
class Step:
    """One call: its keys, which it may share with other steps of one cache, and everything else.

    Attributes:
        make: builds the matrix from its keys.
        keys: the keys of this step and of later steps that extend it.
        size: how many of them this step had.
        queries: the number of its queries.
        attention: everything else between these and the weights; None for a given matrix.
        query: (B, H, queries, D), if the step knows no values; None for a given matrix.
        positions: the positions of its queries and keys; None: those of `assumed`.
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
        """Return the matrix: the same object until the cache grows, so that its computed statistics are kept.

        If its keys must be assembled, it is a new object each time, because keeping all would take T² of keys.
        """
        if self.keys.held is None:
            self._made = None
            return self.make(self.keys.tensor[:, :, : self.size])
        if self._made is None or self._made[0] is not self.keys.tensor:
            self._made = (self.keys.tensor, self.make(self.keys.tensor[:, :, : self.size]))
        return self._made[1]

    def grew_into(self, later: Step) -> bool:
        """Whether a later call's keys begin with this one's, as in a cache, so that both can share the later tensor.

        Keys that no query so far may attend to may differ: a static cache fills them in later.
        """
        if self.keys.chain is not None:
            return False
        old, new = self.keys.tensor[:, :, : self.size], later.keys.tensor
        if old.dtype != new.dtype or old.shape[:2] != new.shape[:2] or not self.size <= new.shape[2]:
            return False
        other = (old != new[:, :, : self.size]).any(-1).any(1)
        return not bool((other if self.keys.seen is None else other & self.keys.seen).any())
