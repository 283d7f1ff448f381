"""Observer: the hooks that one `observe` puts on a model, and the record it fills."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from clearhead.capture.adapters import bigbird, longformer, prophetnet
from clearhead.capture.adapters.function_mode import AttentionFunctionMode
from clearhead.capture.adapters.torch_compile import eager_mode, is_compiled
from clearhead.capture.adapters.transformers_interface import uses_interface
from clearhead.capture.attention_modules import innermost, is_named_attention, parent_names
from clearhead.capture.call import Call, Masks, record_step
from clearhead.capture.head_outputs.projection import ProjectionFinder
from clearhead.capture.position_tracking import PositionTracker
from clearhead.capture.record import Missed, Record
from clearhead.capture.softmax_tracing.frames import Outcome
from clearhead.errors import CaptureError, ClearheadError, OptionError
from clearhead.matrix import AttentionMatrix
from clearhead.messages import message
from clearhead.sizes import size

# Class name -> the adapter that describes a call from its arguments: attention in blocks, windows or streams.
_ADAPTERS = {name: adapter.describe for adapter in (bigbird, longformer, prophetnet) for name in adapter.CLASSES}


class Observer:
    """Fills one record: which layers and heads to keep, within which memory, and what was missed.

    Args:
        model: the model; its modules get hooks in `watching`.
        layers, heads, max_bytes, values: as of `observe`; lists checked already.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[int | str] | None,
        heads: list[int] | None,
        *,
        max_bytes: int | str | None,
        values: bool,
    ) -> None:
        self._model = model
        modules = dict(model.named_modules())
        self._names = {id(module): name for name, module in modules.items()}
        self._expected = innermost(modules)
        self._attention = {id(module) for module in modules.values() if is_named_attention(type(module).__name__)}
        self._layers = None if layers is None else {self._name(layer) for layer in layers}
        self._heads = heads
        self._bytes_left = size(max_bytes, "max_bytes")
        self._values = values
        self._full = False
        self._ran = False
        self._running: list[nn.Module] = []
        self._function_mode: AttentionFunctionMode | None = None
        self._outcomes: dict[int, Outcome] = {}
        self._hooks = ExitStack()
        self._replaced: list[nn.Module] = []  # kept alive, so that no other module gets their id
        self._thread = threading.get_ident()
        self._masks = Masks()
        self._tracker = PositionTracker(model)
        self._finder = ProjectionFinder(heads) if values else None
        self.record = Record(
            _order=list(self._names.values()),
            read=self._tracker.read,
            _projections={} if self._finder is None else self._finder.projections,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles of the model contain its hooks; those of a copy do nothing."""
        return _inactive, ()

    def _name(self, layer: int | str) -> str:
        names = list(self._expected)
        if isinstance(layer, str):
            if layer in self._names.values():
                return layer
            raise OptionError(f"there is no layer named {layer!r}. The model's attention modules: {', '.join(names)}.")
        if -len(names) <= layer < len(names):
            return names[layer]
        raise OptionError(
            f"there is no layer {layer}: the model has {len(names)} attention modules. "
            f"Use 0..{len(names) - 1}, or a name: {', '.join(names)}."
        )

    def _is_requested(self, name: str) -> bool:
        return self._layers is None or any(parent in self._layers for parent in (name, *parent_names(name)))

    def record_call(self, call: Call) -> AttentionMatrix | None:
        """Record a call and return its matrix; None if it is not requested or cannot be recorded (see `missed`)."""
        name = self._names.get(id(call.module))
        if name is None or not self._is_requested(name):
            return None
        total = call.query.shape[1]
        if self._heads is not None and any(not 0 <= head < total for head in self._heads):
            raise OptionError(f"heads={self._heads}, but {name} has heads 0..{total - 1}. Name heads that exist.")
        size = self._bytes_of(call)
        if self._full or (self._bytes_left is not None and size > self._bytes_left):
            self._stop_recording(name, size)
            return None
        try:
            step = record_step(call, self._masks, self._heads, values=self._values)
        except ClearheadError as error:  # the model must run on
            self._miss(name, str(error))
            return None
        if self._bytes_left is not None:
            self._bytes_left -= size
        batch, _, queries, _ = call.query.shape
        step.positions = self._tracker.positions(call.module, batch, queries, call.key.shape[2])
        self.record._add(name, step)
        if self._finder is not None and call.out is not None and call.rows is None:
            self._finder.expect(name, call.module, call.query, call.out)
        return step.make(step.keys.tensor)

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
        self._miss(name, "max_bytes was reached")

    def _miss(self, name: str, reason: str) -> None:
        item = Missed(name, reason)
        if item not in self.record.missed:
            self.record.missed.append(item)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While open, observe calls of torch's functions, and list each attention module that runs unobserved."""
        with ExitStack() as stack:
            self._hooks = stack
            self._tracker.watch(list(self._expected.values()), stack)
            if self._finder is not None:
                self._finder.watch(self._model, stack)
            stack.callback(self._model.register_forward_hook(self._model_ran).remove)
            modules = self._expected.values()
            if not modules or is_compiled(self._model) or not all(map(uses_interface, modules)):
                stack.enter_context(eager_mode())
                for module in self._model.modules():
                    self._follow(module)
                self._function_mode = stack.enter_context(
                    AttentionFunctionMode(self.record_call, self._current_module, self._could_not_trace)
                )
            for name, module in self._model.named_modules():
                self._expect(name, module)
            yield

    def _follow(self, module: nn.Module) -> None:
        """Put the hooks on a module that tell when it runs."""
        for handle in (
            module.register_forward_pre_hook(self._enter, with_kwargs=True),
            module.register_forward_hook(self._leave, always_call=True),
        ):
            self._hooks.callback(handle.remove)

    def _expect(self, name: str, module: nn.Module) -> None:
        """Put hooks on an attention module that tell when it has run, and that call its adapter, if any."""
        if type(module).__name__ in _ADAPTERS:
            self._hooks.callback(module.register_forward_hook(self._adapter_ran, with_kwargs=True).remove)
        if id(module) in self._attention and self._is_requested(name):
            self._hooks.callback(module.register_forward_hook(self._module_ran).remove)

    def _adopt(self, parent: nn.Module) -> None:
        """Put hooks on modules made while the model runs: BigBird replaces its attention for a short text."""
        for attribute, child in parent.named_children():
            if id(child) in self._names:
                continue
            place = self._names[id(parent)]
            for name, module in child.named_modules(prefix=f"{place}.{attribute}" if place else attribute):
                if id(module) in self._names:
                    continue
                self._names[id(module)] = name
                self._replaced.append(module)
                self._follow(module)
                if is_named_attention(type(module).__name__):
                    self._attention.add(id(module))
                if name in self._expected:
                    self._replaced.append(self._expected[name])
                    self._expected[name] = module
                self._expect(name, module)

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        self._running.append(module)
        self._adopt(module)
        if self._function_mode is not None:
            self._function_mode.begin(module, (*args, *kwargs.values()), id(module) in self._attention)
            self._function_mode.adapter_depth += type(module).__name__ in _ADAPTERS

    def _leave(self, module: nn.Module, _: Any, output: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        self._running.pop()
        if self._function_mode is not None:
            self._function_mode.adapter_depth -= type(module).__name__ in _ADAPTERS
            self._outcomes[id(module)] = self._function_mode.end(module, output)

    def _current_module(self) -> nn.Module | None:
        """The module that is computing attention: the innermost one named so, or else the innermost."""
        for module in reversed(self._running):
            if self._names[id(module)] in self._expected:
                return module
        return self._running[-1] if self._running else None

    def _could_not_trace(self, module: nn.Module, reason: str) -> None:
        name = self._names[id(module)]
        if self._is_requested(name):
            self._miss(name, reason)

    def _adapter_ran(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if threading.get_ident() == self._thread and self._is_requested(self._names[id(module)]):
            self.record_call(_ADAPTERS[type(module).__name__](module, args, kwargs, output))

    def _model_ran(self, *_: Any) -> None:
        self._ran = self._ran or threading.get_ident() == self._thread

    def _module_ran(self, module: nn.Module, *_: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        name = self._names[id(module)]
        reported = (*self.record, *(item.name for item in self.record.missed))
        outcome = self._outcomes.pop(id(module), None)
        if any(other == name or name in parent_names(other) for other in reported):
            return
        if outcome is None and name not in self._expected:
            return  # it contains a module that reports for itself
        if outcome is not None and not outcome.mixed and type(module).__name__ not in _ADAPTERS:
            return  # an ordinary layer with an attention's name
        reason = "neither through Hugging Face's attention interface nor through torch's own functions"
        more = f"; {outcome.unseen}" if outcome is not None and outcome.unseen else ""
        self._miss(name, f"{type(module).__name__} computes its attention by itself: {reason}{more}")

    def check_something_was_seen(self) -> None:
        """Check that a model that ran computed some attention.

        Raises:
            CaptureError: it ran, and none was recorded or missed.
        """
        if self._ran and not self.record and not self.record.missed:
            raise CaptureError(
                message(
                    "%(model)s ran and no attention was seen in it. Observe a model with attention layers; if it has "
                    "some, they are of a kind Clearhead does not know.",
                    model=type(self._model).__name__,
                )
            )


def _inactive() -> Observer:
    """An observer of no thread: its hooks return at once."""
    observer = object.__new__(Observer)
    observer._thread, observer._ran = -1, False
    return observer
