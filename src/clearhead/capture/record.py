"""What a run of a model leaves behind: one attention matrix a call of an attention module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from clearhead.capture.keys import Keys
from clearhead.matrix import AttentionMatrix


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
    """

    make: Callable[[Tensor], AttentionMatrix]
    keys: Keys
    size: int
    queries: int = 0
    _made: tuple[Tensor, AttentionMatrix] | None = None

    def matrix(self) -> AttentionMatrix:
        """The matrix; the same object until the cache grows, so that what it has found out is kept.

        Where its keys have to be put together first, it is another object each time: kept, all would take T² of keys.
        """
        if self.keys.held is None:
            self._made = None
            return self.make(self.keys.tensor[:, :, : self.size])
        if self._made is None or self._made[0] is not self.keys.tensor:
            self._made = (self.keys.tensor, self.make(self.keys.tensor[:, :, : self.size]))
        return self._made[1]

    def grew_into(self, later: Step) -> bool:
        """Whether a later call's keys begin with this one's, as a cache's do; then both can share the later's tensor.

        Keys that no query so far may attend to need not agree: a static cache fills them in later.
        """
        if self.keys.chain is not None:
            return False
        old, new = self.keys.tensor[:, :, : self.size], later.keys.tensor
        if old.dtype != new.dtype or old.shape[:2] != new.shape[:2] or not self.size <= new.shape[2]:
            return False
        other = (old != new[:, :, : self.size]).any(-1).any(1)
        return not bool((other if self.keys.seen is None else other & self.keys.seen).any())


@dataclass(eq=False)
class Record(Mapping[str, AttentionMatrix]):
    """Module name -> AttentionMatrix, in the order the modules have in the model.

    A module may run more than once inside one `with` block (each step of `generate()`, for one): `record[name]` is its
    last call, `record.calls(name)` is all of them, oldest first.

    Attributes:
        missed: what ran and was not captured, each with a reason; never silently short.

    Memory: queries of every call, and keys once for a cache, also where beam search reorders it.
    """

    missed: list[Missed] = field(default_factory=list)
    _steps: dict[str, list[Step]] = field(default_factory=dict, repr=False)
    _order: list[str] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, matrices: Mapping[str, AttentionMatrix]) -> Record:
        """A record of matrices that are there already, one a name, in this order."""
        record = cls(_order=list(matrices))
        for name, matrix in matrices.items():
            keys = torch.empty(0, 0, 0, 0)
            record._steps[name] = [Step(partial(_itself, matrix), Keys(keys), 0)]
        return record

    def __getitem__(self, name: str) -> AttentionMatrix:
        return self._known(name)[-1].matrix()

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._order if self._steps.get(name))

    def __len__(self) -> int:
        return sum(1 for steps in self._steps.values() if steps)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self._steps.get(name))

    def calls(self, name: str) -> tuple[AttentionMatrix, ...]:
        """Every matrix that module `name` computed, oldest first.

        Raises:
            KeyError: nothing was recorded under that name; the message says what was.
        """
        return tuple(step.matrix() for step in self._known(name))

    def to_html(
        self,
        path: str | Path,
        *,
        tokens: Sequence[str] | None = None,
        title: str = "A record",
        progress: Callable[[int, int], None] | None = None,
    ) -> Path:
        """Write one self-contained page: every head small, one large, zoomed and pointed at; no request leaves it.

        Args:
            path: the file to write.
            tokens: what to call the positions, one each; their numbers if not given.
            title: the page's heading.
            progress: told after each layer: how many are done, of how many.

        Returns:
            The path. The file stays under 5 MB whatever the length of the text; what was left out to keep it so, and
            that the first of a batch and the last call of each module are drawn, is said on the page.

        Raises:
            OptionError: nothing was captured, the tokens are not one a position, or the file cannot be written.

        Memory: O(L) a head; no L × S tensor beyond about 900,000 weights. Cost: about three forward passes.

        Example:
            >>> import tempfile
            >>> q = torch.randn(1, 2, 5, 4)
            >>> record = Record.of({"a layer": AttentionMatrix(q, q)})
            >>> record.to_html(f"{tempfile.mkdtemp()}/heads.html", tokens="I saw a red kite".split()).name
            'heads.html'
        """
        from clearhead.views.html import save  # the one import upward: docs/decisions/, "A record draws itself"

        return save(self, path, tokens=tokens, title=title, progress=progress)

    def _known(self, name: str) -> list[Step]:
        if name not in self:
            missed = {item.name: item.reason for item in self.missed}
            if name in missed:
                raise KeyError(f"{name!r} ran and was not captured: {missed[name]}")
            have = ", ".join(self) or "nothing: run the model inside the `with observe(model)` block"
            raise KeyError(f"no attention was recorded under {name!r}; recorded: {have}")
        return self._steps[name]

    def _add(self, name: str, step: Step) -> None:
        """Append a call; of keys that come from the last call's, only what is new is kept."""
        steps = self._steps.setdefault(name, [])
        if steps and steps[-1].grew_into(step):
            shared = steps[-1].keys
            shared.grow(step.keys)
            step.keys = shared
        elif steps and step.keys.follow(steps[-1].keys, step.queries):
            steps[-1]._made = None
        steps.append(step)


def _itself(matrix: AttentionMatrix, _: Tensor) -> AttentionMatrix:
    return matrix
