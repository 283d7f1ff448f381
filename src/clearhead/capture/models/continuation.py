"""Continuation: the KV cache and the record of a written text, so that continuing it runs only the new tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from torch import Tensor

from clearhead.capture.models.loading import Loaded
from clearhead.capture.record import Record


@dataclass(eq=False, slots=True)
class Continuation:
    """The state in which a Writing stopped.

    Attributes:
        loaded: the model that wrote.
        ids: the tokens that it has read.
        without: the heads that were switched off, as (layer, head).
        cache: the keys and values of these tokens, a cache class of transformers.
        record: the record of these tokens; None if it does not begin with the first one.
    """

    loaded: Loaded
    ids: tuple[int, ...]
    without: tuple[tuple[int, int], ...]
    cache: Any
    record: Record | None

    def usable(self, ids: Sequence[int]) -> int:
        """Return how many tokens at the beginning of a text need not be read again. The last token always is."""
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.ids, ids[:-1], strict=False)))
        return same if same == len(self.ids) or self._is_plain() else 0

    def cache_of(self, length: int) -> Any:
        """Return the cache cropped to the first `length` tokens. It is the same object, so use a continuation once."""
        if length < len(self.ids):
            self.cache.crop(length - len(self.ids))
        return self.cache

    @property
    def nbytes(self) -> int:
        """Return the bytes that the cache and the record take."""
        parts = [getattr(layer, name, None) for layer in self._layers() for name in ("keys", "values")]
        total = sum(part.nbytes for part in parts if isinstance(part, Tensor))
        if self.record is not None:
            steps = [step for name in self.record for step in self.record._steps[name]]
            keys = {id(step.keys): step.keys.held for step in steps}
            total += sum(step.query.nbytes for step in steps if step.query is not None)
            total += sum(held.nbytes for held in keys.values() if held is not None)
        return total

    def _layers(self) -> list[Any]:
        return list(getattr(self.cache, "layers", []))

    def _is_plain(self) -> bool:
        """Whether every layer keeps all its keys in one tensor, so that the last ones can be cropped."""
        from transformers.cache_utils import DynamicLayer

        return bool(self._layers()) and all(type(layer) is DynamicLayer for layer in self._layers())
