"""Track which position of the input each element of a tensor belongs to, which tells heads from the batch.

A layer turns each position into features, and a model splits the features into heads. Codes number the positions
(tokens of a text, patches of a picture); they follow a tensor through views, copies and layers. Along an axis of heads
the code stays the same, along the batch it changes, and along an axis that merges both it repeats. What padding adds
belongs to no position: its code is NOWHERE.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from clearhead.capture.softmax_tracing import layouts
from clearhead.capture.softmax_tracing.contraction import PRODUCTS, Axis, Contraction, contraction

_CONVOLUTIONS = {F.conv1d, F.conv2d, F.conv3d}
_NAMES = """
cat concat concatenate stack repeat repeat_interleave tile roll flip index_select pad
"""
_MOVES = layouts.VIEWS | frozenset(_NAMES.split())  # functions that move or repeat numbers
NOWHERE = -1


def _pad(codes: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    return F.pad(codes, pad, mode, NOWHERE if mode == "constant" else None)


# Codes that repeat along an axis have no view that merges it with another.
_ON_CODES = {Tensor.view: Tensor.reshape, Tensor.view_as: Tensor.reshape_as, F.pad: _pad}


class PositionCodes:
    """The codes of the tensors of one forward pass."""

    def __init__(self) -> None:
        self._codes: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def get(self, tensor: Tensor) -> Tensor | None:
        """Return int64 of a tensor's shape: the position of each element; None if it is not known."""
        return self._codes.get(tensor)

    def begin(self, inputs: list[Tensor]) -> None:
        """Number the positions of a model's inputs of up to three axes: all axes but the last are positions."""
        for tensor in inputs:
            if tensor.is_floating_point() and 2 <= tensor.dim() <= 3 and tensor not in self._codes:
                self._codes[tensor] = _numbered(tensor, -1)

    def after(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Pass the codes of a function's arguments on to its outputs."""
        if func in _MAKES_POSITIONS or any(tensor in self._codes for tensor in tensors_in(args, kwargs)):
            outputs = list(out) if isinstance(out, tuple | list) else [out]
            for output, codes in zip(outputs, self._derived(func, args, kwargs, outputs), strict=False):
                if isinstance(output, Tensor) and codes is not None and codes.shape == output.shape:
                    self._codes[output] = codes

    def _derived(self, func: Any, args: Any, kwargs: Any, outputs: list[Any]) -> list[Tensor | None]:
        out, name = outputs[0] if outputs else None, getattr(func, "__name__", "")
        if name in _MOVES:
            return self._moved(func, args, kwargs)
        if func is torch.einsum:  # its first argument is a string
            return [self._of_product(func, args, kwargs)]
        if not isinstance(out, Tensor) or not args or not isinstance(args[0], Tensor):
            return []
        own = self._codes.get(args[0])
        if func is F.embedding:
            return [_numbered(out, -1)]
        if func is F.linear and self._is_layer(args[0], args[1] if len(args) > 1 else kwargs.get("weight")):
            if own is None:
                return [_numbered(out, -1) if out.dim() <= 3 else None]  # with more axes, one may be heads already
            return [own[..., :1].expand(out.shape)]
        if func in _CONVOLUTIONS and out.dim() == args[0].dim() > 2:
            if own is None:
                return [_numbered(out, 1)]
            return [own[:, :1].expand(out.shape)] if own.shape[2:] == out.shape[2:] else []
        if func is torch.view_as_complex:
            return [None if own is None else own[..., 0]]
        if func is torch.view_as_real:
            return [None if own is None else own.unsqueeze(-1).expand(out.shape)]
        if func in PRODUCTS:
            return [self._of_product(func, args, kwargs)]
        return [self._of_same_shape(out, tensors_in(args, kwargs))]

    def _moved(self, func: Any, args: Any, kwargs: Any) -> list[Tensor | None]:
        """Apply the same function to the codes, so that they move with the numbers."""
        first, *rest = args or (kwargs.get("tensors", kwargs.get("input")),)
        several = isinstance(first, tuple | list)
        codes = [self._codes.get(t) if isinstance(t, Tensor) else None for t in (first if several else [first])]
        if any(item is None for item in codes):
            return []
        named = {name: arg for name, arg in kwargs.items() if name not in ("tensors", "input", "out")}
        func = _ON_CODES.get(func, func)
        try:
            moved = func(codes if several else codes[0], *rest, **named)
        except Exception:  # noqa: BLE001 (a function or an argument that integers lack: the codes are lost)
            return []
        return list(moved) if isinstance(moved, tuple | list) else [moved]

    def _is_layer(self, features: Tensor, weight: Any) -> bool:
        return isinstance(weight, Tensor) and (is_parameter(weight) or weight not in self._codes) and features.dim() > 1

    def _of_product(self, func: Any, args: Any, kwargs: Any) -> Tensor | None:
        """Return the codes of a product of positions with weights, such as x @ W or x with a W per head."""
        product = contraction(func, args, kwargs)
        if product is None:
            return None
        known = [side for side in (0, 1) if product.tensors[side] in self._codes]
        weight = product.tensors[1 - known[0]] if known else None
        if len(known) != 1 or weight is None or not (is_parameter(weight) or weight.dim() == 2):
            return None
        side = known[0]
        codes, axes = self._codes[product.tensors[side]], product.axes[side]
        for place, axis in reversed(list(enumerate(axes))):
            if axis not in product.result or axis in product.axes[1 - side]:
                codes = codes.select(place, 0)
        kept = [a for a in axes if a in product.result and a not in product.axes[1 - side]]
        return layouts.arranged(codes, kept, [(a,) for a in product.result], product.sizes)

    def _of_same_shape(self, out: Tensor, given: list[Tensor]) -> Tensor | None:
        """Return the codes of an argument of the same shape, or else of one that is broadcast."""
        whole = [tensor for tensor in given if tensor.shape == out.shape]
        if not whole and not _is_broadcast(out, given):  # a 1×1 picture enlarged has new positions
            return None
        for tensor in whole or given:
            codes = self._codes.get(tensor)
            if codes is not None and codes.dim() <= out.dim():
                try:
                    return codes.expand(out.shape)
                except RuntimeError:
                    continue
        return None


_MAKES_POSITIONS = {F.embedding, F.linear} | _CONVOLUTIONS


def batch_and_heads(product: Contraction, axis: Axis) -> tuple[int, int, bool] | None:
    """Return (batch, heads, heads first) of which an axis of a product's result consists; None if not known."""
    for tensor, codes, axes in zip(product.tensors, product.codes, product.axes, strict=True):
        if codes is None or codes.is_meta or axis not in axes or tensor.shape[axes.index(axis)] == 1:
            continue
        line = _line(codes, axes.index(axis))
        if line is None:
            continue
        batch = len(set(line))
        heads, rest = divmod(len(line), batch)
        if rest:
            return None
        if all(len(set(line[start : start + heads])) == 1 for start in range(0, len(line), heads)):
            return batch, heads, False
        if line == line[:batch] * heads:
            return batch, heads, True
        return None
    return None


def _line(codes: Tensor, axis: int) -> list[int] | None:
    """Return the codes along one axis, at the first place on the others that has no padding; None if all have some."""
    line: list[int] = codes[tuple(slice(None) if place == axis else 0 for place in range(codes.dim()))].tolist()
    if NOWHERE not in line:
        return line
    lines = codes.movedim(axis, 0).flatten(1)
    whole = (lines != NOWHERE).all(0).nonzero()
    return lines[:, int(whole[0])].tolist() if len(whole) else None


def _is_broadcast(out: Tensor, given: list[Tensor]) -> bool:
    try:
        return torch.broadcast_shapes(*(tensor.shape for tensor in given)) == out.shape
    except RuntimeError:
        return False


def is_parameter(tensor: Tensor) -> bool:
    """Whether a tensor is a parameter or a view of one."""
    return isinstance(tensor, nn.Parameter) or isinstance(tensor._base, nn.Parameter)


def _numbered(tensor: Tensor, features: int) -> Tensor:
    """Return the positions of a tensor, in order; they are constant along the axis of features."""
    shape = list(tensor.shape)
    shape[features] = 1
    return torch.arange(math.prod(shape), device=tensor.device).view(shape).expand(tensor.shape)


def tensors_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors among arguments, and in lists and tuples of them."""
    tensors: list[Tensor] = []
    for arg in (*args, *kwargs.values()):
        tensors += [item for item in (arg if isinstance(arg, list | tuple) else [arg]) if isinstance(item, Tensor)]
    return tensors
