"""Intervener: the hooks that one `intervene` puts on a model, and the outputs it replaces."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from clearhead.capture.call import NO_TOKENS, Call
from clearhead.capture.interventions.edits import Changed, Edit, HeadCall, Recorded, zero
from clearhead.capture.module_watching import ModuleWatcher
from clearhead.capture.positions import Positions
from clearhead.capture.softmax_tracing.weighted_values import WeightedValues
from clearhead.errors import CaptureError, OptionError
from clearhead.spec import divide_heads

DID_NOT_RUN = "its attention did not run"
HEADS_SUMMED = "it sums its heads in one product with the values, so that none has an output to change"


class NotBatchedError(CaptureError):
    """A layer mixes the copies of the inputs along the batch."""


@dataclass(frozen=True, slots=True)
class HeadEdit:
    """An edit of one head, in the whole batch or in one of the batch's copies of the inputs."""

    head: int
    edit: Edit
    copy: int | None = None


class Intervener(ModuleWatcher):
    """Replaces outputs of heads while a model runs.

    Args:
        model: the model.
        edits: by layer index or name; several edits of one head apply one after the other.
        copies: the number of copies of the inputs in the batch, one after the other.
        shapes: (B, L) of each layer for one copy.
    """

    def __init__(
        self,
        model: nn.Module,
        edits: Sequence[tuple[int | str, HeadEdit]],
        *,
        copies: int = 1,
        shapes: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        super().__init__(model)
        self._copies, self._shapes = copies, shapes or {}
        self._edits: dict[str, list[HeadEdit]] = {}
        for layer, edit in edits:
            self._edits.setdefault(self.layer_name(layer), []).append(edit)
        self._missed: dict[str, str] = {}
        self._applied: set[str] = set()
        self._seen: set[str] = set()
        self._real: Tensor | None = None

    @property
    def editor(self) -> Intervener:
        """The editor of outputs, which is this object."""
        return self

    def record_call(self, call: Call) -> None:
        """Note that a layer's attention ran. Nothing is recorded."""
        if id(call.module) in self._names:
            self._seen.add(self._names[id(call.module)])

    def miss(self, name: str, reason: str) -> None:
        """Note why a layer cannot be edited."""
        if reason == NO_TOKENS:
            self._applied.add(name)  # there is nothing to change
        else:
            self._missed.setdefault(name, reason)

    def _is_requested(self, name: str) -> bool:
        return name in self._edits

    def _reported(self) -> Iterable[str]:
        return (*self._applied, *self._seen, *self._missed)

    def _watch_more(self, stack: ExitStack) -> None:
        stack.callback(self._model.register_forward_pre_hook(self._takes_mask, with_kwargs=True).remove)

    def _takes_mask(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Keep which tokens are padding, from the model's (B, S) attention mask."""
        if threading.get_ident() == self._thread:
            mask = kwargs.get("attention_mask")
            self._real = mask > 0 if isinstance(mask, Tensor) and mask.dim() == 2 else None

    def edit(self, call: Call) -> Tensor | None:
        """Return the output (B, L, H, D_v) with the heads' edits; None if the call belongs to another layer."""
        name = self._names.get(id(call.module))
        if name is None or name not in self._edits or call.out is None:
            return None
        if not call.out.numel():
            self.miss(name, NO_TOKENS)
            return None
        _, heads, length, _ = call.query.shape
        z = call.out.reshape(len(call.out), length, heads, -1)

        def weigh(head: int, rows: slice) -> Callable[[Tensor], Tensor]:
            def of(weights: Tensor) -> Tensor:
                if call.value is None:
                    raise CaptureError(f"the values of {name!r} are not known, so its weights cannot be replaced")
                own = call.value.expand(len(z), *call.value.shape[1:])[rows]
                out = weights @ own[:, head // divide_heads(heads, own.shape[1])]
                other = call.row_values
                if other is None:
                    return out
                return (weights @ other.value[rows, head]).where(other.rows[rows, :, None], out)

            return of

        place = self._tracker.positions(call.module, len(z), length, call.key.shape[2])
        return self._apply(name, z, call.key.shape[2], place, weigh)

    def edit_weighted(self, module: nn.Module, weighted: WeightedValues) -> Tensor | None:
        """Return a product of weights and values in a model's own code with the heads' edits, in its own axes."""
        name = self._names.get(id(module))
        if name is None or name not in self._edits:
            return None
        batch, _, length, keys = weighted.shape
        z = weighted.z.transpose(1, 2)
        rows = {entry.head: weighted.rows_of(entry.head % weighted.shape[1]) for entry in self._edits[name]}
        for entry in self._edits[name]:
            parts = 0 < rows[entry.head] < batch * length
            if (parts and entry.edit is not zero) or (weighted.again and isinstance(entry.edit, Changed | Recorded)):
                raise CaptureError(
                    f"{name!r} computes the output of head {entry.head} in several products, which can only be zeroed "
                    "together"
                )

        def weigh(head: int, rows: slice) -> Callable[[Tensor], Tensor]:
            def of(weights: Tensor) -> Tensor:
                full = weights.new_zeros(batch, length, keys)
                full[rows] = weights
                return weighted.weigh(head, full)[rows]

            return of

        place = self._tracker.positions(module, batch, length, keys)
        edited = self._apply(name, z, keys, place, weigh, [head for head, count in rows.items() if count])
        return weighted.write(edited.transpose(1, 2))

    def _apply(
        self,
        name: str,
        z: Tensor,
        keys: int,
        place: Positions,
        weigh: Callable[[int, slice], Callable[[Tensor], Tensor]],
        here: Sequence[int] | None = None,
    ) -> Tensor:
        """Return z (B, L, H, D_v) with the edits of one layer, as a new tensor; only for the heads `here`, if given."""
        length, heads = z.shape[1:3]
        entries, expected = self._shapes.get(name, (len(z) // self._copies, length))
        if (len(z), length) != (self._copies * entries, expected):
            raise NotBatchedError(f"{name!r} runs a batch of {len(z)} over {length} queries on {self._copies} copies")
        for entry in self._edits[name]:
            if not -heads <= entry.head < heads:
                raise OptionError(f"there is no head {entry.head} in {name!r}, which has heads 0..{heads - 1}.")
        edited = z.clone()
        real = self._padding(len(z), length)
        for entry in self._edits[name]:
            if here is not None and entry.head not in here:
                continue
            head = entry.head % heads
            rows = slice(None) if entry.copy is None else slice(entry.copy * entries, (entry.copy + 1) * entries)
            call = HeadCall(
                name,
                head,
                heads,
                edited[rows, :, head],
                keys,
                weigh(head, rows),
                place,
                None if real is None else real[rows],
            )
            new = entry.edit(call)
            edited = edited.clone() if edited.requires_grad else edited  # autograd needs the values that it has saved
            edited[rows, :, head] = new
        self._applied.add(name)
        return edited

    def _padding(self, batch: int, length: int) -> Tensor | None:
        real = self._real
        if real is None or len(real) != batch or real.shape[1] < length:
            return None
        return real[:, -length:]

    def check_all_were_edited(self) -> None:
        """Check that each requested layer was edited, if the model ran.

        Raises:
            CaptureError: some were not; the message says why.
        """
        left = [name for name in self._edits if name not in self._applied]
        if self._ran and left:
            unseen = {name: HEADS_SUMMED if name in self._seen else DID_NOT_RUN for name in left}
            reasons = "; ".join(f"{name}: {self._missed.get(name, unseen[name])}" for name in left)
            raise CaptureError(f"the model ran, and these layers were not changed. {reasons}")
