"""Observer: the hooks that one `observe` puts on a model, and the record it fills."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from clearhead.capture.adapters import transformers_interface
from clearhead.capture.attention_modules import parent_names
from clearhead.capture.call import Call, Masks, record_step
from clearhead.capture.decode_steps import DecodeSteps
from clearhead.capture.head_outputs.projection import ProjectionFinder
from clearhead.capture.module_watching import ModuleWatcher
from clearhead.capture.record import Record
from clearhead.capture.steps import Missed
from clearhead.errors import CaptureError, ClearheadError, OptionError
from clearhead.matrix import AttentionMatrix
from clearhead.messages import message
from clearhead.sizes import size


class Observer(ModuleWatcher):
    """Fills one record: keeps the requested layers and heads within the memory budget, and notes what was missed.

    Args:
        model: the model; its modules get hooks in `watching`.
        layers, heads, max_bytes, values: as in `observe`; lists are already checked.
        check: whether to compare each call with the model's own output; False if similar calls were compared.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[int | str] | None,
        heads: list[int] | None,
        *,
        max_bytes: int | str | None,
        values: bool,
        check: bool = True,
    ) -> None:
        super().__init__(model)
        self._layers = None if layers is None else {self.layer_name(layer) for layer in layers}
        self._heads = heads
        self._bytes_left = size(max_bytes, "max_bytes")
        self._values, self._check = values, check
        self._full = False
        self._masks = Masks()
        self._steps = DecodeSteps(self._masks) if heads is None and not values else None
        self._finder = ProjectionFinder(heads) if values else None
        self.record = Record(
            _order=list(self._names.values()),
            read=self._tracker.read,
            _projections={} if self._finder is None else self._finder.projections,
        )

    def _is_requested(self, name: str) -> bool:
        return self._layers is None or any(parent in self._layers for parent in (name, *parent_names(name)))

    def record_call(self, call: Call) -> AttentionMatrix | None:
        """Record a call and return its matrix, or None if it is not requested or cannot be recorded (see `missed`)."""
        name = self._names.get(id(call.module))
        if name is None or not self._is_requested(name):
            return None
        total = call.query.shape[1]
        if self._heads is not None and any(not 0 <= head < total for head in self._heads):
            raise OptionError(f"heads={self._heads}, but {name} has heads 0..{total - 1}. Name heads that exist.")
        if self._bytes_left is not None or self._full:
            size = self._bytes_of(call)
            if self._full or (self._bytes_left is not None and size > self._bytes_left):
                self._stop_recording(name, size)
                return None
            self._bytes_left = None if self._bytes_left is None else self._bytes_left - size
        try:
            step = None if self._steps is None else self._steps.step(call)
            follows = step is not None
            step = step or record_step(call, self._masks, self._heads, values=self._values, check=self._check)
        except ClearheadError as error:  # the model must keep running
            self.miss(name, str(error))
            return None
        batch, _, queries, _ = call.query.shape
        step.positions = self._tracker.positions(call.module, batch, queries, call.key.shape[2])
        if follows:
            self.record._steps[name].append(step)
            return step.make(step.keys.tensor)
        self.record._add(name, step)
        if self._steps is not None:
            self._steps.add(call, step)
        if self._finder is not None and call.out is not None and call.rows is None:
            self._finder.expect(name, call.module, call.query, call.out)
        return step.make(step.keys.tensor)

    def follow(
        self, module: nn.Module, query: Tensor, key: Tensor, mask: Any, options: dict[str, Any]
    ) -> AttentionMatrix | None:
        """Record a decode step whose keys are known to continue the last step's. Return None if they are not."""
        if self._steps is None or self._bytes_left is not None or self._full:
            return None
        step = self._steps.follow(module, query, key, mask, transformers_interface.relevant(options))
        if step is None:
            return None
        step.positions = self._tracker.positions(module, query.shape[0], 1, step.size)
        self.record._steps[self._names[id(module)]].append(step)
        return step.make(key)

    def _bytes_of(self, call: Call) -> int:
        share = 1.0 if self._heads is None else len(self._heads) / call.query.shape[1]
        keys = call.key.nbytes if self._heads is None else len(self._heads) * call.key.nbytes // call.key.shape[1]
        kept = call.value.nbytes if self._values and call.value is not None else 0
        bias = call.attention.bias
        table = bias.nbytes if bias is not None and bias.shape[-2] > 1 else 0
        return int(share * call.query.nbytes) + keys + int(share * kept) + table

    def _stop_recording(self, name: str, size: int) -> None:
        if not self._full:
            warnings.warn(
                f"observe: recording stopped at {name}, whose queries and keys take {size} bytes with "
                f"{self._bytes_left} of max_bytes left. The model runs on. Raise max_bytes, or choose layers= or "
                "heads=.",
                RuntimeWarning,
                stacklevel=2,
            )
        self._full = True
        self.miss(name, "max_bytes was reached")

    def miss(self, name: str, reason: str) -> None:
        item = Missed(name, reason)
        if item not in self.record.missed:
            self.record.missed.append(item)

    def _reported(self) -> Iterable[str]:
        return (*self.record, *(item.name for item in self.record.missed))

    def _watch_more(self, stack: ExitStack) -> None:
        stack.callback(self._model.register_forward_pre_hook(self._keep_pass, with_kwargs=True).remove)
        if self._finder is not None:
            self._finder.watch(self._model, stack)
        if self._steps is not None:
            self._tracker.on_cache = self._steps.begins
            stack.callback(self._steps.end)

    def _keep_pass(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the model's inputs, so that `why` can run it again. After several passes `why` is refused."""
        if threading.get_ident() == self._thread and len(self.record._passes) < 2:
            self.record._passes.append((model, args, kwargs))

    def check_something_was_seen(self) -> None:
        """Check that some attention was seen if the model ran.

        Raises:
            CaptureError: it ran, and no attention was recorded or missed.
        """
        if self._ran and not self.record and not self.record.missed:
            raise CaptureError(
                message(
                    "%(model)s ran and no attention was seen in it. Observe a model with attention layers; if it has "
                    "some, they are of a kind Clearhead does not know.",
                    model=type(self._model).__name__,
                )
            )
