"""Describe any product of two tensors as an einsum, with a name for each axis of the operands and the result.

`matmul`, `@`, `bmm`, `baddbmm`, `einsum` in each of its forms, `tensordot`, `inner` and `linear` all become a
Contraction. A name in both operands and not in the result is summed over.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Axis = str | int
Axes = tuple[Axis, ...]
Keys = Callable[[Tensor], list[int]]

_MATMUL = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.mm, Tensor.mm}
_MATMUL |= {torch.mv, Tensor.mv, torch.linalg.matmul}
_REVERSED = {Tensor.__rmatmul__}
_ADDED = {torch.baddbmm: ("batch1", "batch2"), Tensor.baddbmm: ("batch1", "batch2")}
_ADDED |= {torch.addmm: ("mat1", "mat2"), Tensor.addmm: ("mat1", "mat2")}
_INNER = {torch.inner, Tensor.inner}
_TENSORDOT = {torch.tensordot}
PRODUCTS = _MATMUL | _REVERSED | set(_ADDED) | _INNER | _TENSORDOT | {torch.einsum, F.linear}


@dataclass(frozen=True, slots=True)
class Contraction:
    """One product of two tensors.

    Attributes:
        tensors: the two operands.
        axes: the names of each operand's axes.
        result: the names of the result's axes.
        codes: which position of the input each element of an operand belongs to (see position_codes); None: unknown.
    """

    tensors: tuple[Tensor, Tensor]
    axes: tuple[Axes, Axes]
    result: Axes
    codes: tuple[Tensor | None, Tensor | None] = (None, None)

    @property
    def sizes(self) -> dict[Axis, int]:
        """The size of each axis. An operand of size 1 is broadcast."""
        sizes: dict[Axis, int] = {}
        for tensor, axes in zip(self.tensors, self.axes, strict=True):
            for axis, size in zip(axes, tensor.shape, strict=True):
                sizes[axis] = max(size, sizes.get(axis, 0))
        return sizes

    def own(self, side: int) -> set[Axis]:
        """Return the axes along which an operand varies, without broadcast axes of size 1."""
        sizes = self.sizes
        return {a for a, size in zip(self.axes[side], self.tensors[side].shape, strict=True) if size == sizes[a]}

    def split(self, axis: Axis, sizes: tuple[int, ...]) -> Contraction:
        """Return the same product with one axis split into several."""
        parts = tuple(f"{axis}.{n}" for n in range(len(sizes)))
        tensors, names, codes = list(self.tensors), list(self.axes), list(self.codes)
        for side, (tensor, axes) in enumerate(zip(self.tensors, self.axes, strict=True)):
            if axis in axes:
                place = axes.index(axis)
                whole = tensor.shape[place] == self.sizes[axis]
                parted = sizes if whole else (1,) * len(sizes)
                tensors[side] = tensor.unflatten(place, parted)
                codes[side] = None if (own := codes[side]) is None else own.unflatten(place, parted)
                names[side] = (*axes[:place], *parts, *axes[place + 1 :])
        place = self.result.index(axis)
        result = (*self.result[:place], *parts, *self.result[place + 1 :])
        return Contraction((tensors[0], tensors[1]), (names[0], names[1]), result, (codes[0], codes[1]))

    @property
    def summed(self) -> Axes:
        """The axes in both operands and not in the result."""
        return tuple(a for a in self.axes[0] if a in self.axes[1] and a not in self.result)


def contraction(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], keys_of: Keys | None = None
) -> Contraction | None:
    """Return the product that a call of a torch function computes; None if it is not a product of two tensors.

    Args:
        func, args, kwargs: the call.
        keys_of: returns the key axes of attention weights, none for another tensor. If given, an einsum of the weights,
            the values and more tensors is the product of the weights with all others.
    """
    if func not in PRODUCTS:
        return None
    if func is torch.einsum:
        return _einsum(args, keys_of)
    if func in _ADDED:
        names = ("input", *_ADDED[func])
        given = dict(zip(names, args, strict=False)) | kwargs
        left, right = given[names[1]], given[names[2]]
    else:
        left, right, *_ = (*args, *(kwargs[name] for name in kwargs if isinstance(kwargs[name], Tensor)))
    if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
        return None
    if func in _REVERSED:
        left, right = right, left
    if func in _TENSORDOT:
        return _tensordot(left, right, inspect.signature(torch.tensordot).bind(*args, **kwargs).arguments)
    if func is F.linear and isinstance(right, nn.Parameter):
        return None  # weights of a layer are neither keys nor values
    if func in _INNER or func is F.linear:
        rows: Axes = tuple(range(left.dim() - 1))
        cols: Axes = tuple(range(-right.dim() + 1, 0))
        return Contraction((left, right), ((*rows, "d"), (*cols, "d")), (*rows, *cols))
    return _matmul(left, right)


def without_addend(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Tensor:
    """Return the product alone of a call of `baddbmm` or `addmm`, which add a tensor to it; `out` for other calls."""
    return func(*args, **(kwargs | {"beta": 0})) if func in _ADDED else out


def _matmul(left: Tensor, right: Tensor) -> Contraction:
    before: list[Axes] = [tuple(range(-max(tensor.dim() - 2, 0), 0)) for tensor in (left, right)]
    rows: Axes = ("i",) if left.dim() > 1 else ()
    cols: Axes = ("j",) if right.dim() > 1 else ()
    batch = max(before, key=len)
    return Contraction((left, right), ((*before[0], *rows, "d"), (*before[1], "d", *cols)), (*batch, *rows, *cols))


def _tensordot(left: Tensor, right: Tensor, given: dict[str, Any]) -> Contraction | None:
    dims = given.get("dims", 2)
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        dims = (range(left.dim() - dims, left.dim()), range(dims))
    if not isinstance(dims, Sequence) or len(dims) != 2:
        return None
    left_axes: list[Axis] = [f"l{axis}" for axis in range(left.dim())]
    right_axes: list[Axis] = [f"r{axis}" for axis in range(right.dim())]
    for left_axis, right_axis in zip(*dims, strict=True):
        right_axes[right_axis] = left_axes[left_axis]
    result = [a for a in left_axes if a not in right_axes] + [a for a in right_axes if a not in left_axes]
    return Contraction((left, right), (tuple(left_axes), tuple(right_axes)), tuple(result))


def _einsum(args: tuple[Any, ...], keys_of: Keys | None = None) -> Contraction | None:
    """Return the product of an einsum. Torch turns lists of axes into an equation before a mode sees the call."""
    equation, *operands = args
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = list(operands[0])
    if len(operands) > 2 and keys_of is not None and isinstance(equation, str):
        equation, operands = _two_operands(equation.replace(" ", ""), operands, keys_of)
    if len(operands) != 2 or not isinstance(equation, str):
        return None
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow:
        once = Counter(letter for letter in inputs if letter.isalpha())
        output = ("..." if "..." in inputs else "") + "".join(sorted(a for a, n in once.items() if n == 1))
    first, second = (_names(term, tensor.dim()) for term, tensor in zip(terms, operands, strict=True))
    rest = max((tuple(a for a in axes if isinstance(a, int)) for axes in (first, second)), key=len)
    head, dots, tail = output.partition("...")
    result: Axes = (*head, *(rest if dots else ()), *tail)
    if any(len(set(axes)) != len(axes) for axes in (first, second)):
        return None  # a diagonal
    if any(a not in result and (a in first) != (a in second) for a in {*first, *second}):
        return None  # an axis of only one operand is summed over
    return Contraction((operands[0], operands[1]), (first, second), result)


def _two_operands(equation: str, operands: list[Tensor], keys_of: Keys) -> tuple[str, list[Tensor]]:
    """Return an einsum of several tensors as an einsum of the weights and the product of all others.

    It is returned unchanged if the others change the weights: if one of them that is not the values has an axis of
    keys, or an axis of the weights that the values lack.
    """
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    places = [place for place, tensor in enumerate(operands) if keys_of(tensor)]
    if len(places) != 1 or not arrow or "." in equation:
        return equation, operands
    (place,) = places
    term = terms[place]
    keys = {term[axis] for axis in keys_of(operands[place])}
    others = [other for n, other in enumerate(terms) if n != place]
    values = [other for other in others if keys & set(other)]
    if len(values) != 1 or any(set(other) & set(term) - set(values[0]) for other in others):
        return equation, operands
    kept = "".join(dict.fromkeys(letter for letter in "".join(others) if letter in term + output))
    whole = torch.einsum(f"{','.join(others)}->{kept}", *(t for n, t in enumerate(operands) if n != place))
    return f"{term},{kept}->{output}", [operands[place], whole]


def _names(term: str, axes: int) -> Axes:
    """ "...ij" -> (-2, -1, "i", "j") for four axes."""
    head, dots, tail = term.partition("...")
    rest = range(-(axes - len(head) - len(tail)), 0) if dots else ()
    return (*head, *rest, *tail)
