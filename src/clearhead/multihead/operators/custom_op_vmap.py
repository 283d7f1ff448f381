"""The custom operator under torch.vmap: the mapped axis of every input is folded into the batch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import OptionError
from clearhead.multihead.operators.custom_op import BACKWARD_INPUTS, INPUTS, attend, attend_backward
from clearhead.spec import ARGUMENTS, FIELDS, Axes, four_axes

_BATCHED = ("grad_out", "grad_lse", "out", "lse", "query", "key", "value")
Dims = tuple[int | None, ...]


@attend.register_vmap
def _(info: Any, in_dims: Dims, *inputs: Any) -> tuple[tuple[Tensor, ...], Dims]:
    size = info.batch_size
    given, dims = dict(zip(INPUTS, inputs, strict=True)), dict(zip(INPUTS, in_dims, strict=True))
    if _shares_a_seed(given, dims):
        outputs = _one_by_one(attend, size, in_dims, inputs)
        return tuple(outputs), (0,) * len(outputs)
    batch = _batch(given, dims)
    outputs = attend(*_folded(given, dims, size, batch).values())
    return tuple(output.unflatten(0, (size, batch)) for output in outputs), (0, 0)


@attend_backward.register_vmap
def _(info: Any, in_dims: Dims, *inputs: Any) -> tuple[list[Tensor], list[int]]:
    size = info.batch_size
    given, dims = dict(zip(BACKWARD_INPUTS, inputs, strict=True)), dict(zip(BACKWARD_INPUTS, in_dims, strict=True))
    if _shares_a_seed(given, dims):
        outputs = _one_by_one(attend_backward, size, in_dims, inputs)
        return outputs, [0] * len(outputs)
    batch = _batch(given, dims)
    folded = _folded(given, dims, size, batch)
    if given["learning"]:
        raise OptionError(
            f"vmap over the gradient of {given['learning'].replace(' ', ' and ')} is not supported: it sums over the "
            f"batch. Use a loop."
        )
    grad_query, grad_key, grad_value, *empty = attend_backward(*folded.values())
    grads = [grad.unflatten(0, (size, batch)) for grad in (grad_query, grad_key, grad_value)]
    return [*grads, *(grad.expand(size, *grad.shape) for grad in empty)], [0] * (3 + len(empty))


def _shares_a_seed(given: dict[str, Any], dims: dict[str, int | None]) -> bool:
    """Return whether all mapped calls share one seed: folded into one batch, their dropout patterns would differ."""
    return given["seed"] is not None and dims["seed"] is None


def _batch(given: dict[str, Any], dims: dict[str, int | None]) -> int:
    """Return B of one mapped call."""
    return _lead(given["query"], dims["query"], 1).shape[1]


def _folded(given: dict[str, Any], dims: dict[str, int | None], size: int, batch: int) -> dict[str, Any]:
    """Return the inputs of one call on a batch of size·B.

    Raises:
        OptionError: a field with one number per head is mapped; the head axis cannot be folded into the batch.
    """
    folded = dict(given)
    for name, value in given.items():
        if value is None:
            continue
        if name in _BATCHED:
            folded[name] = _lead(value, dims[name], size).flatten(0, 1)
        elif name == "seed":  # any of the mapped seeds: each batch entry has its own pattern
            folded[name] = value.select(dims[name], 0)
        elif name in ARGUMENTS and FIELDS[name].axes is Axes.HEADS and dims[name] is not None:
            raise OptionError(f"vmap over {name} is not supported, because it has one number per head. Use a loop.")
        elif name in ARGUMENTS and FIELDS[name].axes in (Axes.PAIRS, Axes.KEYS):
            folded[name] = _fold_mask(value, dims[name], size, batch)
    return folded


def _one_by_one(operator: Callable[..., Any], size: int, in_dims: Dims, inputs: tuple[Any, ...]) -> list[Tensor]:
    calls = [
        operator(*(value if dim is None else value.select(dim, i) for value, dim in zip(inputs, in_dims, strict=True)))
        for i in range(size)
    ]
    return [torch.stack(parts) for parts in zip(*calls, strict=True)]


def _lead(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """Move the mapped axis to the front, or add one."""
    return tensor.unsqueeze(0).expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _fold_mask(mask: Tensor, dim: int | None, size: int, batch: int) -> Tensor:
    """Return a mask that broadcasts to (B, H, L, S), mapped or not, for a batch of size·B."""
    if dim is None:
        four = four_axes(mask)
        return four if four.shape[0] == 1 else four.repeat(size, 1, 1, 1)
    mask = mask.movedim(dim, 0)
    four = mask.view(size, *(1,) * (5 - mask.dim()), *mask.shape[1:])
    return four.expand(size, batch, *four.shape[2:]).flatten(0, 1)
