"""ablate(): measure the effect of every head on a number, several heads per forward pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from clearhead.capture.adapters import transformers_interface
from clearhead.capture.call import Call
from clearhead.capture.interventions.effects import HeadEffect, HeadEffects
from clearhead.capture.interventions.intervene import Change, applying, as_edit
from clearhead.capture.interventions.intervener import HeadEdit, Intervener, NotBatchedError
from clearhead.capture.module_watching import ModuleWatcher
from clearhead.errors import CaptureError, OptionError

Head = tuple[str, int]
Metric = Callable[[Any], Any]


def ablate(
    model: nn.Module,
    inputs: Any,
    metric: Metric,
    *,
    layers: Iterable[int | str] | None = None,
    heads: Iterable[int] | None = None,
    change: Change = "zero",
    batch: int = 8,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> HeadEffects:
    """Ablate every head of a model, one at a time, and measure what changes.

    Several heads share a forward pass: the inputs are repeated along the batch, and each copy loses another head. Where
    the batch is not the first axis of the inputs, or the model mixes it, each head has a pass of its own.

    Args:
        model: any model that `intervene` can change; call `model.eval()` first.
        inputs: the model's inputs: a dict of keyword arguments (a tokenizer's output), a tensor, or a tuple of
            positional arguments.
        metric: outputs -> a number, such as `lambda out: out.logits[0, -1, mary] - out.logits[0, -1, john]`. It is
            called once for each head, with the model's output on the inputs alone.
        layers: which attention modules, by index or name; None = all.
        heads: which heads of each; None = all.
        change: how a head is changed, as in `intervene`: "zero", "mean", a Record, a function …
        batch: how many heads share a forward pass.
        jobs: how many passes run at the same time, in threads.
        progress: called as heads are done: (how many, of how many).

    Returns:
        HeadEffects, one row per head in layer order: the metric without the head, and its difference from the metric
        with all heads. Gradients are not computed.

    Raises:
        OptionError: an argument is not as above, or metric does not return one number.
        CaptureError: no attention was seen in the model.

    Memory: `batch` · `jobs` times that of one forward pass.

    Source: Michel et al. 2019, "Are Sixteen Heads Really Better than One?", section 3.2.

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> size = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 7}
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=11, num_key_value_heads=3, **size)).eval()
        >>> effects = ablate(model, {"input_ids": torch.tensor([[1, 2, 3]])}, lambda out: out.logits[0, -1, 5])
        >>> len(effects), effects[0].layer, effects[0].head, effects.matrix().shape
        (6, 'model.layers.0.self_attn', 0, torch.Size([2, 3]))
    """
    for name, count in (("batch", batch), ("jobs", jobs)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise OptionError(f"{name} is {count!r}, expected an int of 1 or more.")
    if not isinstance(model, nn.Module):
        raise OptionError(f"model is a {type(model).__name__}, expected a torch.nn.Module. Pass the model itself.")
    run = _Run(model, inputs, metric, change)
    baseline, layout = run.whole()
    wanted = _wanted(layout, layers, heads)
    chunks = [wanted[start : start + batch] for start in range(0, len(wanted), batch)]
    values: dict[Head, float] = {}
    for part in _in_threads(run.without, chunks, jobs):
        values |= part
        if progress is not None:
            progress(len(values), len(wanted))
    rows = [HeadEffect(name, head, values[name, head], values[name, head] - baseline) for name, head in wanted]
    return HeadEffects(rows, baseline, layout.missed)


@dataclass(slots=True)
class Layout:
    """The heads of a model by layer, as seen in one pass.

    Attributes:
        heads: the number of heads of each layer, in the model's order.
        index: the attention modules that a layer index refers to.
        shapes: (B, L) of the last call of each.
        missed: layers whose attention is not known, with the reason.
    """

    heads: dict[str, int]
    index: list[str]
    shapes: dict[str, tuple[int, int]]
    missed: dict[str, str]


class _HeadCounter(ModuleWatcher):
    """Counts the heads of each attention module; keeps no tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._heads: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, int]] = {}
        self._missed: dict[str, str] = {}

    def record_call(self, call: Call) -> None:
        name = self._names.get(id(call.module))
        if name is not None:
            batch, self._heads[name], length, _ = call.query.shape
            self._shapes[name] = (batch, length)

    def miss(self, name: str, reason: str) -> None:
        self._missed.setdefault(name, reason)

    def _is_requested(self, name: str) -> bool:
        return True

    def _reported(self) -> Iterable[str]:
        return (*self._heads, *self._missed)

    @property
    def layout(self) -> Layout:
        ordered = {name: self._heads[name] for name in self._names.values() if name in self._heads}
        return Layout(ordered, list(self._expected) or list(ordered), self._shapes, self._missed)


class _Run:
    """Runs one model on one input, whole or without heads."""

    def __init__(self, model: nn.Module, inputs: Any, metric: Metric, change: Change) -> None:
        self._model, self._metric, self._change = model, metric, change
        self._args, self._kwargs = _as_arguments(inputs)
        self._batch = _batch_size((self._args, self._kwargs))
        self._copies_fail = False
        self._shapes: dict[str, tuple[int, int]] = {}
        if "use_cache" in inspect.signature(model.forward).parameters:
            self._kwargs.setdefault("use_cache", False)

    def whole(self) -> tuple[float, Layout]:
        """Return the metric with all heads, and the model's heads."""
        counter = _HeadCounter(self._model)
        with torch.no_grad(), transformers_interface.listening(counter.record_call), counter.watching():
            output = self._model(*self._args, **self._kwargs)
        layout = counter.layout
        if not layout.heads:
            raise CaptureError(f"{type(self._model).__name__} ran and no attention was seen in it: {layout.missed}")
        self._shapes = layout.shapes
        return self._number(output), layout

    def without(self, heads: Sequence[Head]) -> dict[Head, float]:
        """Return the metric without each of some heads."""
        if len(heads) > 1 and not self._copies_fail:
            try:
                return self._together(heads)
            except (NotBatchedError, RuntimeError, ValueError, IndexError):
                self._copies_fail = True  # one pass per head raises the error again, unless the copies caused it
        return {head: self._together([head])[head] for head in heads}

    def _together(self, heads: Sequence[Head]) -> dict[Head, float]:
        copies = len(heads)
        edits = [(name, HeadEdit(head, as_edit((name, head), self._change), n)) for n, (name, head) in enumerate(heads)]
        intervener = Intervener(self._model, edits, copies=copies, shapes=self._shapes)
        args, kwargs = pytree.tree_map_only(Tensor, self._repeated(copies), (self._args, self._kwargs))
        with torch.no_grad(), applying(intervener):
            output = self._model(*args, **kwargs)
        return {head: self._number(self._part(output, n, copies)) for n, head in enumerate(heads)}

    def _repeated(self, copies: int) -> Callable[[Tensor], Tensor]:
        def repeat(tensor: Tensor) -> Tensor:
            is_batched = copies > 1 and tensor.dim() > 0 and len(tensor) == self._batch
            return tensor.repeat(copies, *(1,) * (tensor.dim() - 1)) if is_batched else tensor

        return repeat

    def _part(self, output: Any, number: int, copies: int) -> Any:
        """Return the output for one copy of the inputs."""
        rows = slice(number * self._batch, (number + 1) * self._batch)

        def take(tensor: Tensor) -> Tensor:
            return tensor[rows] if tensor.dim() and len(tensor) == copies * self._batch else tensor

        return output if copies == 1 else pytree.tree_map_only(Tensor, take, output)

    def _number(self, output: Any) -> float:
        value = self._metric(output)
        if isinstance(value, Tensor) and value.numel() == 1:
            return float(value)
        if not isinstance(value, int | float):
            got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise OptionError(f"metric returned {got}, expected one number. Reduce it, with .mean() for example.")
        return float(value)


def _as_arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, list | tuple):
        return tuple(inputs), {}
    raise OptionError(
        f"inputs is a {type(inputs).__name__}, expected a dict of keyword arguments, a tensor, or a tuple of tensors."
    )


def _batch_size(inputs: Any) -> int:
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim()]
    return len(tensors[0]) if tensors else 1


def _wanted(layout: Layout, layers: Iterable[int | str] | None, heads: Iterable[int] | None) -> list[Head]:
    """Return the (layer, head) pairs to ablate, in layer order.

    Raises:
        OptionError: a layer or head does not exist.
    """
    names = list(layout.heads) if layers is None else [_layer(layout, layer) for layer in layers]
    chosen = None if heads is None else list(heads)
    wanted = []
    for name in names:
        total = layout.heads[name]
        for head in range(total) if chosen is None else chosen:
            if not 0 <= head < total:
                raise OptionError(f"heads has {head} in it, but {name} has heads 0..{total - 1}.")
            wanted.append((name, head))
    return wanted


def _layer(layout: Layout, layer: int | str) -> str:
    name = layer
    if isinstance(layer, int) and -len(layout.index) <= layer < len(layout.index):
        name = layout.index[layer]
    if not isinstance(name, str) or name not in layout.heads:
        reason = f" ({layout.missed[name]})" if isinstance(name, str) and name in layout.missed else ""
        raise OptionError(f"layer {layer!r} has no heads that can be ablated{reason}. Use {', '.join(layout.heads)}.")
    return name


def _in_threads(
    work: Callable[[Sequence[Head]], dict[Head, float]], chunks: list[list[Head]], jobs: int
) -> Iterator[dict[Head, float]]:
    if jobs == 1:
        yield from map(work, chunks)
        return
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(work, chunks)
