"""Tensors as the native library takes them: addresses and strides; and room for what its backward pass sums."""

import torch
from torch import Tensor

from clearhead.kernels import dropout
from clearhead.kernels.problem import Problem

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums, and of what the library is told beside tensors of `dtype`: never narrower than float32."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def lse_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the lse that goes from forward to backward. float32 weights rebuilt from a float32 lse would be good
    to 1e-5 only, where logits are in the hundreds."""
    return torch.float64 if dtype is torch.float32 else wide(dtype)


def four(tensor: Tensor) -> tuple[int, ...]:
    return (tensor.data_ptr(), *tensor.stride())


def three(tensor: Tensor) -> tuple[int, ...]:
    return (tensor.data_ptr(), *tensor.stride(), 0)


class Extras:
    """What few problems have, as the library takes it; holds the tensors made for it while it runs."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        dtype = wide(problem.query.dtype)
        self._sinks, self._alibi = _numbers(problem.sinks, dtype), _numbers(problem.alibi, dtype)

    def places(self) -> tuple[object, ...] | None:
        """In the order of native/binding/binding.cpp; None where the problem has nothing of the kind."""
        problem, p = self._problem, self._problem.dropout_p
        allow, bias = problem.allow, problem.bias
        tensors = (allow, bias, self._sinks, self._alibi)
        if p == 0 and problem.softcap is None and all(tensor is None for tensor in tensors):
            return None
        full = (*problem.query.shape[:3], problem.key.shape[2])
        return (
            None if allow is None else four(allow.broadcast_to(full)),
            None if bias is None else four(bias.broadcast_to(full)),
            0 if bias is None else DTYPES[bias.dtype],
            problem.softcap or 0.0,
            0 if self._sinks is None else self._sinks.data_ptr(),
            problem.seed & 0xFFFFFFFFFFFFFFFF,
            dropout.threshold(p) if p else 0,
            1 / (1 - p),
            0 if self._alibi is None else self._alibi.data_ptr(),
            problem.alibi_offset,
        )


class MoreGradients:
    """Room for the gradients that few problems ask for: of bias, sinks and ALiBi's slopes."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        bias, alibi, rows = problem.bias, problem.alibi, problem.query.shape[:3]
        self._bias = None if bias is None or not bias.requires_grad else _bias_room(problem, bias)
        self._sinks = None if problem.sinks is None else _zeros(problem, rows)
        self._alibi = None if alibi is None or not alibi.requires_grad else _zeros(problem, rows)

    def places(self) -> tuple[object, ...]:
        bias, rows = self._bias, (self._sinks, self._alibi)
        full = (*self._problem.query.shape[:3], self._problem.key.shape[2])
        return None if bias is None else four(bias.expand(full)), *(0 if t is None else t.data_ptr() for t in rows)

    def found(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of bias, sinks and slopes, each in its own shape and dtype."""
        bias, sinks, alibi = self._problem.bias, self._problem.sinks, self._problem.alibi
        return _narrowed(self._bias, bias), _by_head(self._sinks, sinks), _by_head(self._alibi, alibi)


def _bias_room(problem: Problem, bias: Tensor) -> Tensor:
    """Zeros for a bias's gradient. Where queries share the bias, each batch entry and head sums on its own."""
    batch, heads, _, _ = problem.query.shape
    shape = (1,) * (4 - bias.dim()) + tuple(bias.shape)
    return _zeros(problem, (batch, heads, 1, problem.key.shape[2]) if shape[2] == 1 else shape)


def _zeros(problem: Problem, shape: tuple[int, ...]) -> Tensor:
    return problem.query.new_zeros(shape, dtype=wide(problem.query.dtype))


def _narrowed(room: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """Sum what a bias's gradient still holds apart: in its own shape and dtype."""
    if room is None or bias is None:
        return None
    for axis, size in enumerate((1,) * (4 - bias.dim()) + tuple(bias.shape)):
        if size != room.shape[axis]:
            room = _halved(room, axis)
    return room.reshape(bias.shape).to(bias.dtype)


def _by_head(rows: Tensor | None, like: Tensor | None) -> Tensor | None:
    """(B, H, L) -> (H,): the sum over the queries of each head."""
    if rows is None or like is None:
        return None
    return _halved(rows.transpose(0, 1).flatten(1), 1)[:, 0].to(like.dtype)


def _halved(tensor: Tensor, axis: int) -> Tensor:
    """Sum along an axis, which stays with size 1, by halves: the same bits on any number of threads."""
    size = tensor.shape[axis]
    if size == 0:
        return tensor.sum(axis, keepdim=True)
    while size > 1:
        half = size // 2
        both = tensor.narrow(axis, 0, half) + tensor.narrow(axis, half, half)
        tensor = both if size % 2 == 0 else torch.cat([both, tensor.narrow(axis, size - 1, 1)], axis)
        size = tensor.shape[axis]
    return tensor


def _numbers(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.detach().to(dtype).contiguous()
