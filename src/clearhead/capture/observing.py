"""observe(): watch a model's attention while it runs, and put everything back."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from numbers import Integral
from typing import Any

import torch
from torch import nn

from clearhead.capture.adapters import bigbird, longformer, prophetnet, transformers_interface
from clearhead.capture.adapters.function_mode import Direct
from clearhead.capture.adapters.torch_compile import is_compiled, set_aside
from clearhead.capture.call import Call, Masks, captured
from clearhead.capture.position_tracking import Passes
from clearhead.capture.record import Missed, Record
from clearhead.capture.softmax_tracing.tracer import Outcome
from clearhead.errors import CaptureError, ClearheadError, OptionError
from clearhead.matrix import AttentionMatrix
from clearhead.messages import message
from clearhead.sizes import size

_ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)

# What describes a call from outside, by the name of the class: attention in blocks, windows or streams of its own.
_DESCRIBED = {name: family.described for family in (bigbird, longformer, prophetnet) for name in family.CLASSES}


@contextmanager
def observe(
    model: nn.Module,
    *,
    layers: Iterable[int | str] | None = None,
    heads: Iterable[int] | None = None,
    max_bytes: int | str | None = None,
    values: bool = False,
) -> Iterator[Record]:
    """Record what a model attends to, while it runs as it always does.

    The model's own kernel still computes its output, which stays the same bit for bit (to rounding where torch would
    have taken a C++ fast path of nn.Transformer, or a compiled function); queries and keys are kept. On leaving, also
    after an exception, everything is as it was. Observers may be nested: each records every call of its own model.
    Only calls in the thread that observes are recorded.

    Args:
        model: a Hugging Face model, or any module whose attention goes through Hugging Face's attention interface, a
            function of torch's or Clearhead's, or products and a softmax of its own (docs/reference/observe.md).
        layers: which attention modules, by index in layer order or by name; None = all.
        heads: which query heads; None = all.
        max_bytes: stop recording before queries and keys take more than this, as in 500_000_000 or "500MB"; the model
            runs on, a warning says so, and what was not kept is in `record.missed`.
        values: keep values too, for `value_weighted` and `gradient_times`; not known where a model computes its softmax
            by hand.

    Yields:
        Record, filled as the model runs. A Hugging Face model asked for `output_attentions=True` gets the same matrices
        in `outputs.attentions`, where its kernel makes no weights: code that expects tensors takes `.to_dense()`.

    Raises:
        OptionError: model is no module, a layer or head does not exist or is no index, none is asked for, or max_bytes
            is no size.
        CaptureError: on leaving, if the model ran and no attention was seen in it.

    Memory: a copy of queries and keys, the model's own masks, and position terms that differ from query to query.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertModel
        >>> size = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 7}
        >>> model = BertModel(BertConfig(vocab_size=11, **size)).eval()
        >>> with observe(model) as record:
        ...     out = model(torch.tensor([[1, 2, 3, 4, 5]]))
        >>> {name: A.shape for name, A in record.items()}
        {'encoder.layer.0.attention.self': (1, 3, 5, 5), 'encoder.layer.1.attention.self': (1, 3, 5, 5)}
    """
    watcher = _Watcher(model, layers, heads, max_bytes, values)
    with transformers_interface.watched(watcher.seen), watcher.watching():
        yield watcher.record
    watcher.close()


def attention_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that look like attention by their class' name, innermost only, in the model's own order."""
    return _alike(dict(model.named_modules()))


def _alike(modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    likely = {name: module for name, module in modules.items() if _is_like(type(module).__name__)}
    around = {parent for name in likely for parent in _parents(name)}
    return {name: module for name, module in likely.items() if name not in around}


@lru_cache(maxsize=1024)
def _is_like(kind: str) -> bool:
    return _ATTENTION.search(kind) is not None


def _parents(name: str) -> list[str]:
    """The names of the modules around one: "a.b.c" is in "a.b", "a" and "", the model itself."""
    parts = name.split(".")[:-1] if name else []
    return [".".join(parts[:count]) for count in range(len(parts) + 1)] if name else []


def _listed(name: str, asked: Any, *, names: bool) -> Any:
    """The layers or heads that were asked for, as a list; None for all."""
    if asked is None:
        return None
    kinds, expected = ((Integral, str), "indices or names") if names else ((Integral,), "indices")
    if isinstance(asked, (*kinds, str, bytes)) or not isinstance(asked, Iterable):
        raise OptionError(f"{name} is {asked!r}, expected a list of {expected}. Write {name}=[{asked!r}].")
    if isinstance(asked, Mapping):  # transformers' prune_heads takes layer -> heads; its keys alone would be read here
        raise OptionError(f"{name} is a {type(asked).__name__}, expected a list of {expected}. Write {name}=[…].")
    every = [one.item() if isinstance(one, torch.Tensor) and one.numel() == 1 else one for one in asked]
    for one in every:
        if isinstance(one, bool) or not isinstance(one, kinds):
            raise OptionError(f"{name} has {one!r} in it, expected {expected}. Write {name}=[0], for example.")
    if not every:
        raise OptionError(f"{name} names none, so nothing would be recorded. Name some, or leave it out for all.")
    return every


class _Watcher:
    """What one `observe` wants (layers, heads, room) and the record it fills."""

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[int | str] | None,
        heads: Iterable[int] | None,
        max_bytes: int | str | None,
        values: bool,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise OptionError(f"model is a {type(model).__name__}, expected a torch.nn.Module. Pass the model itself.")
        chosen, kept = _listed("layers", layers, names=True), _listed("heads", heads, names=False)
        self._model = model
        modules = dict(model.named_modules())
        self._names = {id(module): name for name, module in modules.items()}
        self._expected = _alike(modules)
        self._alike = {id(module) for module in modules.values() if _is_like(type(module).__name__)}
        self._wanted = None if chosen is None else {self._name(layer) for layer in chosen}
        self._heads: list[int] | None = kept
        self._room = size(max_bytes, "max_bytes")
        self._values = values
        self._full = False
        self._ran = False
        self._running: list[nn.Module] = []
        self._direct: Direct | None = None
        self._outcomes: dict[int, Outcome] = {}
        self._hooks = ExitStack()
        self._replaced: list[nn.Module] = []  # kept, so that nobody else gets their id
        self._thread = threading.get_ident()
        self._masks = Masks()
        self._passes = Passes(model)
        self.record = Record(_order=list(self._names.values()), read=self._passes.read)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of the model takes its hooks along, in memory or on disk; nobody is behind those."""
        return _nobody, ()

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

    def _wants(self, name: str) -> bool:
        return self._wanted is None or any(around in self._wanted for around in (name, *_parents(name)))

    def seen(self, call: Call) -> AttentionMatrix | None:
        """Record a call and answer its matrix, or say why not."""
        name = self._names.get(id(call.module))
        if name is None or not self._wants(name):
            return None
        total = call.query.shape[1]
        if self._heads is not None and any(not 0 <= head < total for head in self._heads):
            raise OptionError(f"heads={self._heads}, but {name} has heads 0..{total - 1}. Name heads that exist.")
        size = self._size(call)
        if self._full or (self._room is not None and size > self._room):
            self._stop(name, size)
            return None
        try:
            step = captured(call, self._masks, self._heads, values=self._values)
        except ClearheadError as error:  # whatever it is, the model runs on
            self._miss(name, str(error))
            return None
        if self._room is not None:
            self._room -= size
        batch, _, queries, _ = call.query.shape
        step.positions = self._passes.positions(call.module, batch, queries, call.key.shape[2])
        self.record._add(name, step)
        return step.make(step.keys.tensor)

    def _size(self, call: Call) -> int:
        share = 1.0 if self._heads is None else len(self._heads) / call.query.shape[1]
        keys = call.key.nbytes if self._heads is None else len(self._heads) * call.key.nbytes // call.key.shape[1]
        kept = call.value.nbytes if self._values and call.value is not None else 0
        table = call.bias.nbytes if call.bias is not None and call.bias.shape[-2] > 1 else 0
        return int(share * call.query.nbytes) + keys + int(share * kept) + table

    def _stop(self, name: str, size: int) -> None:
        if not self._full:
            warnings.warn(
                f"observe: recording stopped at {name}, whose queries and keys take {size} bytes with {self._room} of "
                "max_bytes left. The model runs on. Raise max_bytes, or choose layers= or heads=.",
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
        """While open, see direct calls of torch's functions, and notice each attention module that runs unseen."""
        with ExitStack() as stack:
            self._hooks = stack
            self._passes.watch(list(self._expected.values()), stack)
            stack.callback(self._model.register_forward_hook(self._model_ran).remove)
            expected = self._expected.values()
            unseen = not expected or not all(transformers_interface.speaks(module) for module in expected)
            if unseen or is_compiled(self._model):
                stack.enter_context(set_aside())
                for module in self._model.modules():
                    self._follow(module)
                self._direct = stack.enter_context(Direct(self.seen, self._current, self._unknown))
            for name, module in self._model.named_modules():
                self._expect(name, module)
            yield

    def _follow(self, module: nn.Module) -> None:
        """Know when a module runs."""
        for handle in (
            module.register_forward_pre_hook(self._enter, with_kwargs=True),
            module.register_forward_hook(self._leave, always_call=True),
        ):
            self._hooks.callback(handle.remove)

    def _expect(self, name: str, module: nn.Module) -> None:
        """Notice when an attention module has run, and what it computed where that is known by its class alone."""
        if type(module).__name__ in _DESCRIBED:
            self._hooks.callback(module.register_forward_hook(self._described_ran, with_kwargs=True).remove)
        if id(module) in self._alike and self._wants(name):
            self._hooks.callback(module.register_forward_hook(self._module_ran).remove)

    def _adopt(self, parent: nn.Module) -> None:
        """Take in the modules that came to be while the model ran: BigBird changes its kind for a short text."""
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
                if _is_like(type(module).__name__):
                    self._alike.add(id(module))
                if name in self._expected:
                    self._replaced.append(self._expected[name])
                    self._expected[name] = module
                self._expect(name, module)

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        self._running.append(module)
        self._adopt(module)
        if self._direct is not None:
            self._direct.begin(module, (*args, *kwargs.values()), id(module) in self._alike)
            self._direct.quiet += type(module).__name__ in _DESCRIBED

    def _leave(self, module: nn.Module, _: Any, output: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        self._running.pop()
        if self._direct is not None:
            self._direct.quiet -= type(module).__name__ in _DESCRIBED
            self._outcomes[id(module)] = self._direct.end(module, output)

    def _current(self) -> tuple[nn.Module | None, bool]:
        """The module that is computing attention: the innermost that looks like it, or just the innermost."""
        for module in reversed(self._running):
            if self._names[id(module)] in self._expected:
                return module, True
        return (self._running[-1] if self._running else None), False

    def _unknown(self, module: nn.Module, reason: str) -> None:
        name = self._names[id(module)]
        if self._wants(name):
            self._miss(name, reason)

    def _described_ran(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if threading.get_ident() == self._thread and self._wants(self._names[id(module)]):
            self.seen(_DESCRIBED[type(module).__name__](module, args, kwargs, output))

    def _model_ran(self, *_: Any) -> None:
        self._ran = self._ran or threading.get_ident() == self._thread

    def _module_ran(self, module: nn.Module, *_: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        name = self._names[id(module)]
        told = (*self.record, *(item.name for item in self.record.missed))
        outcome = self._outcomes.pop(id(module), None)
        if any(other == name or name in _parents(other) for other in told):
            return
        if outcome is None and name not in self._expected:
            return  # around one that speaks for itself
        if outcome is not None and not outcome.mixed and type(module).__name__ not in _DESCRIBED:
            return  # a layer with an attention's name
        reason = "neither through Hugging Face's attention interface nor through torch's own functions"
        more = f"; {outcome.unseen}" if outcome is not None and outcome.unseen else ""
        self._miss(name, f"{type(module).__name__} computes its attention by itself: {reason}{more}")

    def close(self) -> None:
        """Refuse a run in which there was nothing to see."""
        if self._ran and not self.record and not self.record.missed:
            raise CaptureError(
                message(
                    "%(model)s ran and no attention was seen in it. Observe a model with attention layers; if it has "
                    "some, they are of a kind Clearhead does not know.",
                    model=type(self._model).__name__,
                )
            )


def _nobody() -> _Watcher:
    """A watcher that no thread is of, so that its hooks return at once."""
    watcher = object.__new__(_Watcher)
    watcher._thread, watcher._ran = -1, False
    return watcher
