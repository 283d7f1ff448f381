"""Convert a problem to the structs of native/arguments.h, field by field."""

from typing import Any

import torch
from torch import Tensor

from clearhead.kernels.precision import wide
from clearhead.kernels.problem import Gradients, Problem, contiguous_rows
from clearhead.spec import FIELDS, Axes, four_axes

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
# torch.get_float32_matmul_precision() -> how many bfloat16 numbers represent a float32 in tile registers.
PIECES = {"highest": 0, "high": 2, "medium": 1}


def float32_pieces(dtype: torch.dtype) -> int:
    """Return how many bfloat16 numbers represent a float32 on a CPU target with tile registers; 0 = float32 products.

    2 or 1 if `torch.set_float32_matmul_precision` is "high" or "medium". 0 for other dtypes.
    """
    if dtype is not torch.float32:
        return 0
    try:
        return PIECES[torch.get_float32_matmul_precision()]
    except RuntimeError:  # torch.backends.mkldnn.matmul.fp32_precision was set to a value without a name here
        return 0


def four(tensor: Tensor) -> tuple[int, ...]:
    """Return address and strides of a tensor with four axes."""
    return (tensor.data_ptr(), *tensor.stride())


def address(tensor: Tensor) -> int:
    """Return the address of a tensor; 0 for an empty one, which has no address inside a torch.func transform."""
    return tensor.data_ptr() if tensor.numel() else 0


class Call:
    """The Attention of native/arguments.h for a problem. Keep it until the library returns: it owns memory in use.

    Args:
        library: the compiled library, from library.py.
        problem: the problem to compute.
        out: (B, H, L, D_v), the output to write; None if no output is computed.
        lse: (B, H, L), written by a forward pass, read by a second pass.
    """

    def __init__(self, library: Any, problem: Problem, out: Tensor | None, lse: Tensor) -> None:
        self.attention = call = library.Attention()
        query, key, value = problem.query, problem.key, problem.value
        call.batch, call.heads, call.length, call.width = query.shape
        _, call.kv_heads, call.keys, call.value_width = value.shape
        call.dtype, call.pieces = DTYPES[query.dtype], float32_pieces(query.dtype)
        call.query, call.key, call.value = four(query), four(key), four(value)
        if out is not None:
            call.out = four(out)
        call.lse, call.lse_dtype = (lse.data_ptr(), *lse.stride(), 0), DTYPES[lse.dtype]
        self._owned: list[Tensor] = []
        for name, row in FIELDS.items():
            field = getattr(problem.attention, name)
            if field is None:
                continue
            if not row.is_tensor:
                setattr(call, name, _number(name, field))
            elif row.axes is Axes.HEADS:
                setattr(call, name, self._per_head(field, wide(query.dtype)))
            else:
                setattr(call, name, four(field.broadcast_to(problem.shape)))
                if not row.boolean:
                    setattr(call, f"{name}_dtype", DTYPES[field.dtype])

    def _per_head(self, tensor: Tensor, dtype: torch.dtype) -> int:
        numbers = tensor.detach().to(dtype).contiguous()
        self._owned.append(numbers)
        return numbers.data_ptr()


def _number(name: str, value: Any) -> float | int:
    return int(value) & 0xFFFFFFFFFFFFFFFF if name == "seed" else value


class CallGradients:
    """The Gradients of native/arguments.h for a problem: buffers, and the gradients they hold after the call."""

    def __init__(self, library: Any, problem: Problem, grad_out: Tensor, grad_lse: Tensor | None) -> None:
        self._problem = problem
        self.buffers = library.Gradients()
        self._grads = [torch.empty_like(t).contiguous() for t in (problem.query, problem.key, problem.value)]
        self.buffers.grad_query, self.buffers.grad_key, self.buffers.grad_value = map(four, self._grads)
        self._grad_out = contiguous_rows(grad_out)  # owned until the library returns
        self.buffers.grad_out = four(self._grad_out)
        if grad_lse is not None:
            self._grad_lse = grad_lse.to(wide(problem.query.dtype)).resolve_neg()
            self.buffers.grad_lse = (self._grad_lse.data_ptr(), *self._grad_lse.stride(), 0)
        self._learned: dict[str, Tensor] = {}
        for name in problem.attention.learning():
            if FIELDS[name].axes is Axes.HEADS:
                rows = self._zeros(problem.query.shape[:3])
                setattr(self.buffers, f"{name}_rows", rows.data_ptr())
            else:
                rows = self._zeros(_bias_shape(problem, getattr(problem.attention, name)))
                setattr(self.buffers, f"grad_{name}", four(rows.expand(problem.shape)))
            self._learned[name] = rows

    def result(self) -> Gradients:
        """Return the gradients, after the library has written them."""
        learned = {}
        for name, rows in self._learned.items():
            like = getattr(self._problem.attention, name)
            learned[name] = _sum_by_head(rows, like) if FIELDS[name].axes is Axes.HEADS else _sum_to(rows, like)
        grad_query, grad_key, grad_value = self._grads
        return Gradients(grad_query, grad_key, grad_value, learned)

    def _zeros(self, shape: tuple[int, ...]) -> Tensor:
        return self._problem.query.new_zeros(shape, dtype=wide(self._problem.query.dtype))


def _bias_shape(problem: Problem, bias: Tensor) -> tuple[int, ...]:
    """Return the shape of a bias's gradient buffer; if queries share the bias, each batch entry and head has a sum."""
    batch, heads, _, keys = problem.shape
    shape = four_axes(bias).shape
    return (batch, heads, 1, keys) if shape[2] == 1 else tuple(shape)


def _sum_to(grad: Tensor, bias: Tensor) -> Tensor:
    """Return a bias's gradient in the bias's shape and dtype, summed over the axes along which it broadcasts."""
    for axis, size in enumerate(four_axes(bias).shape):
        if size != grad.shape[axis]:
            grad = _pairwise_sum(grad, axis)
    return grad.reshape(bias.shape).to(bias.dtype)


def _sum_by_head(rows: Tensor, like: Tensor) -> Tensor:
    """Sum over batch entries and queries: (B, H, L) -> (H,)."""
    return _pairwise_sum(rows.transpose(0, 1).flatten(1), 1)[:, 0].to(like.dtype)


def _pairwise_sum(tensor: Tensor, axis: int) -> Tensor:
    """Sum along an axis pairwise, keeping it with size 1: the same bits for any number of threads."""
    size = tensor.shape[axis]
    if size == 0:
        return tensor.sum(axis, keepdim=True)
    while size > 1:
        half = size // 2
        both = tensor.narrow(axis, 0, half) + tensor.narrow(axis, half, half)
        tensor = both if size % 2 == 0 else torch.cat([both, tensor.narrow(axis, size - 1, 1)], axis)
        size = tensor.shape[axis]
    return tensor
