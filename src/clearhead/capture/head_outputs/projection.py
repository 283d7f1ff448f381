"""Find the output projection of each attention: the linear layer whose input is the heads' outputs, merged."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clearhead.capture.head_outputs.replaced_outputs import after_edits
from clearhead.errors import CaptureError

# Number of linear layers after a call of attention whose input is compared; mostly the first one is the projection.
CANDIDATES = 4


@dataclass(frozen=True, slots=True)
class OutputProjection:
    """The linear layer after an attention.

    Attributes:
        module: nn.Linear, or a layer of transformers' Conv1D, whose weight is transposed.
        total: heads of the attention.
        heads: which of them the record keeps; None = all.
    """

    module: nn.Module
    total: int
    heads: list[int] | None = None

    def weight(self, width: int) -> Tensor:
        """Return (H, D_v, E): the part of the weight for each recorded head, with heads of `width` values.

        A weight that dequantises itself (torchao), or of which this process holds all that its heads need (DTensor), is
        read as numbers.

        Raises:
            CaptureError: the layer is quantised and keeps codes, or its weight is sharded over processes.
        """
        weight = _as_numbers(self.module, self.total * width)
        whole = weight if type(self.module).__name__ == "Conv1D" else weight.mT
        parts = whole.reshape(self.total, width, -1)
        return parts if self.heads is None else parts[self.heads]


def _as_numbers(module: nn.Module, merged: int) -> Tensor:
    """Return the weight of a projection as a plain tensor; its input has `merged` features.

    Raises:
        CaptureError: it is codes without a `dequantize`, or sharded.
    """
    kept: Any = module.weight
    weight = kept
    name, axis = type(module).__name__, 0 if type(module).__name__ == "Conv1D" else 1
    if hasattr(weight, "to_local"):  # a DTensor
        weight = weight.detach().to_local()
        if weight.shape[axis] != merged or weight.shape[1 - axis] != kept.shape[1 - axis]:
            raise CaptureError(
                f"the output projection is sharded: this process holds {tuple(weight.shape)} of {name}'s weight "
                f"{tuple(kept.shape)}. Gather it on every rank, weight.full_tensor(), and give it yourself: "
                "record[layer].value_weighted(out_weight=…), or record.z(layer) @ its part of each head."
            )
    if type(weight) not in (Tensor, nn.Parameter) and weight.is_floating_point():  # a subclass, such as torchao's
        try:
            weight = weight.dequantize()
        except (NotImplementedError, RuntimeError, TypeError, AttributeError):
            weight = kept
    if type(weight) not in (Tensor, nn.Parameter) or not weight.is_floating_point():
        raise CaptureError(
            f"the output projection is quantised: {name} keeps its weight as "
            f"{weight.dtype if type(weight) in (Tensor, nn.Parameter) else type(weight).__name__}, which are codes. "
            "Dequantise it, and give it yourself: record[layer].value_weighted(out_weight=…), or record.z(layer) @ its "
            "part of each head."
        )
    return weight.detach()


class ProjectionFinder:
    """Compares the inputs of linear layers with the output of the attention before them.

    Args:
        heads: which heads the record keeps.
    """

    def __init__(self, heads: list[int] | None) -> None:
        self._heads = heads
        self._waiting: tuple[str, Tensor, tuple[int, int, int]] | None = None
        self._left = 0
        self.projections: dict[str, OutputProjection] = {}

    def watch(self, model: nn.Module, hooks: ExitStack) -> None:
        """Put a hook on each linear layer of a model.

        Layers inside a wrapper that adds to its `base_layer` (LoRA in PEFT) are left out: none of them is the whole
        projection.
        """
        wrapped = {
            id(inner) for module in model.modules() if hasattr(module, "base_layer") for inner in module.modules()
        }
        for module in model.modules():
            is_linear = isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
            if is_linear and id(module) not in wrapped:
                hooks.callback(module.register_forward_pre_hook(self._runs).remove)

    def expect(self, name: str, module: nn.Module, query: Tensor, out: Tensor) -> None:
        """Note the output of a module's attention. Its projection runs next, or is known from the module's class.

        Args:
            name: the name of the module.
            module: the attention module.
            query: (B, H, L, D).
            out: (B, L, H, D_v), perhaps with other axes merged.
        """
        self._waiting = None
        batch, heads, length, _ = query.shape
        if name in self.projections:
            return
        if isinstance(module, nn.MultiheadAttention):  # it passes the weight to a function, not through a module
            self._add(name, module.out_proj, heads)
        else:
            self._waiting = (name, out, (batch, length, heads))
            self._left = CANDIDATES

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as an inactive finder: copies of the model contain its hooks, which must do nothing there."""
        return ProjectionFinder, (None,)

    def _add(self, name: str, module: nn.Module, total: int) -> None:
        self.projections[name] = OutputProjection(module, total, self._heads)

    def _runs(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self._waiting is None or not args or not isinstance(args[0], Tensor):
            return
        name, own, shape = self._waiting
        out = after_edits(own).detach().reshape(*shape, -1)
        self._left -= 1
        merged: Any = args[0].detach()
        merged = merged.to_local() if hasattr(merged, "to_local") else merged  # tensor parallel: this rank's heads
        width = out.shape[2] * out.shape[3]
        fits = merged.shape[-1] == width and merged.numel() == out.numel() and merged.dtype == out.dtype
        if fits and torch.equal(merged.reshape(out.shape), out):
            self._add(name, module, out.shape[2])
            self._left = 0
        if self._left <= 0:
            self._waiting = None
