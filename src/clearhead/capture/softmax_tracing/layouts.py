"""Track where the numbers of a tensor come from, with a meta tensor whose strides remember which axis is which.

A `Layout` represents the tensor that it was made from. Each view of that tensor is repeated on the meta tensor, which
has no memory, so its sizes, strides and offset give the place of each number in the original. An operation that changes
numbers but not places keeps the layout. One that moves numbers in a way that strides cannot express loses it (None).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from clearhead.capture.softmax_tracing.contraction import Axes, Axis, Contraction

Layout = Tensor  # on the meta device

_NAMES = """
view reshape transpose permute flatten unflatten unsqueeze squeeze expand expand_as __getitem__ movedim moveaxis
swapaxes swapdims select narrow chunk split tensor_split unbind t view_as reshape_as broadcast_to __get__ adjoint
split_with_sizes unsafe_chunk unsafe_split
"""
VIEWS = frozenset(_NAMES.split())


def storage(tensor: Tensor) -> int:
    """Return a number for the memory of a tensor, equal for all tensors that share it, also inside torch.func."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.untyped_storage()._cdata


def layout(tensor: Tensor) -> Layout:
    """Return the layout of a tensor that is its own original."""
    return torch.empty_strided(tensor.shape, tensor.stride(), device="meta")


def moved(now: Layout, tensor: Tensor, func: Callable[..., Any], args: Any, kwargs: Any, out: Any) -> list[Any]:
    """Return the layouts of a torch function's outputs, given that of the argument `tensor`; None where it is lost."""
    outputs = out if isinstance(out, tuple | list) else [out]
    if getattr(func, "__name__", "") not in VIEWS:
        return [_stretched(now, other) for other in outputs]
    swapped = [now if arg is tensor else arg for arg in args]
    named = {name: now if arg is tensor else arg for name, arg in kwargs.items()}
    try:
        again = func(*swapped, **named)
    except RuntimeError:
        if func.__name__ != "view" or len(outputs) != 1:
            return [None] * len(outputs)
        again = now.reshape(outputs[0].shape)
    except Exception:  # noqa: BLE001 (an index or a shape of another kind: the place is lost, the model runs on)
        return [None] * len(outputs)
    layouts = again if isinstance(again, tuple | list) else [again]
    memory = storage(now)
    return [item if _is_view(item, other, memory) else None for item, other in zip(layouts, outputs, strict=True)]


def _stretched(now: Layout, other: Any) -> Layout | None:
    if not isinstance(other, Tensor):
        return None
    try:
        return now.expand(other.shape)
    except RuntimeError:
        return None


def _is_view(item: Any, other: Any, memory: int) -> bool:
    return (
        isinstance(item, Tensor) and isinstance(other, Tensor) and item.shape == other.shape and storage(item) == memory
    )


def placed(original: Tensor, now: Layout) -> Tensor:
    """Return the numbers of `original` in the order of a layout that began as it."""
    return original.as_strided(now.shape, now.stride(), original.storage_offset() + now.storage_offset())


def names(now: Layout, original: Layout, axes: Axes) -> list[Axes] | None:
    """Return the named axes of its original along which each axis of a layout runs; None if only part of one is left.

    An axis along which numbers are repeated gets a new name, ("new", axis). Axes of size 1 have no name.

    >>> x = torch.empty(2, 3, 5, 7, device="meta")
    >>> names(x.transpose(1, 2).flatten(2), x, tuple("bhij"))  # h and j are not adjacent
    >>> names(x.flatten(0, 1).mT, x, tuple("bhij"))
    [('b', 'h'), ('j',), ('i',)]
    """
    if storage(now) != storage(original):
        return None
    known = [(a, n, s) for a, n, s in zip(axes, original.shape, original.stride(), strict=True) if n > 1]
    known.sort(key=lambda item: -item[2])
    groups: list[Axes] = []
    for place, (size, stride) in enumerate(zip(now.shape, now.stride(), strict=True)):
        if size == 1:
            groups.append(())
            continue
        if stride == 0:
            groups.append((f"new{place}",))
            continue
        inside = [item for item in known if stride <= item[2] < stride * size]
        if math.prod(n for _, n, _ in inside) != size or inside[-1][2] != stride:
            return None
        groups.append(tuple(a for a, _, _ in inside))
    whole = [a for group in groups for a in group if not str(a).startswith("new")]
    return groups if sorted(map(str, whole)) == sorted(str(a) for a, _, _ in known) else None


def split(product: Contraction, original: Layout, now: Layout) -> tuple[Contraction, Layout]:
    """Split merged axes of a product and its layout that are separate in another layout, such as (B·H) into B and H."""
    for place, axis in reversed(list(enumerate(product.result))):
        size, stride = original.shape[place], original.stride(place)
        steps = {s for n, s in zip(now.shape, now.stride(), strict=True) if n > 1 and stride < s < stride * size}
        cuts = [stride * size, *sorted(steps, reverse=True), stride]
        parts = tuple(above // below for above, below in pairwise(cuts))
        if steps and math.prod(parts) == size and all(a % b == 0 for a, b in pairwise(cuts)):
            product, original = product.split(axis, parts), original.unflatten(place, parts)
    return product, original


def arranged(tensor: Tensor, axes: Iterable[Axis], groups: Sequence[Axes], sizes: Mapping[Axis, int]) -> Tensor:
    """Return a tensor of named axes with one axis for each group of names. Missing axes are broadcast.

    >>> sizes = {"b": 2, "i": 5, "d": 3, "h": 4}
    >>> arranged(torch.empty(5, 2, 3), "ibd", ["b", "h", "i", "d"], sizes).shape
    torch.Size([2, 4, 5, 3])
    """
    have = list(axes)
    order = [a for group in groups for a in group]
    tensor = tensor.permute([have.index(a) for a in order if a in have])
    for place, axis in enumerate(order):
        if axis not in have:
            tensor = tensor.unsqueeze(place)
    tensor = tensor.expand([sizes[a] for a in order])
    return tensor.reshape([math.prod(sizes[a] for a in group) for group in groups])
