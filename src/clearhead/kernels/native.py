"""Kernel "native": our C++ on the CPU, the one file that calls it (see native/).

`cpu_targets.py` says which compiled copy of it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clearhead.kernels.capability import Capability
from clearhead.kernels.cpu_targets import current, index_of, targets
from clearhead.kernels.library import library
from clearhead.kernels.places import DTYPES, Extras, MoreGradients, four, lse_dtype, three, wide
from clearhead.kernels.problem import Gradients, Problem, Result, carries_tangent, has_own_memory, is_negated

if TYPE_CHECKING:
    from clearhead.kernels.second_pass import Statistics, Wanted


_UNBOUNDED = 1 << 40  # a reach no sequence attains


def peak(steps: int = 1 << 20) -> float:
    """Do multiply-adds on registers alone, on all of torch's threads; return how many operations that was.

    Timing it tells what the machine's arithmetic can do at best. Runs tens of milliseconds.
    """
    return library.peak(index_of(torch.float32), torch.get_num_threads(), steps)


class Native:
    """float32, bfloat16 and float16 on the CPU, with float32 sums; float64 with its own."""

    name = "native"
    capabilities = (
        Capability.FORWARD | Capability.GRADIENTS | Capability.STATISTICS | Capability.WEIGHTS | Capability.LINEAR
    )
    devices: tuple[str, ...] = ("cpu",)
    has_targets = True

    def unavailable(self) -> str | None:
        return "the native library was not built: no C++ compiler was found at install" if library is None else None

    def describe(self) -> str:
        chosen, why = current()
        name = why if chosen is None else f"target {chosen.name}, {why}"
        others = ", ".join(t.name for t in targets() if t.runs_here and t != chosen)
        return f"{name}; also runs here: {others or 'nothing else'}"

    def refuses(self, problem: Problem, capability: Capability = Capability.FORWARD) -> str | None:
        query = problem.query
        if capability in Capability.STATISTICS | Capability.WEIGHTS and query.dtype is torch.float64:
            return "of float64 it gives no statistics and no weights"
        if not query.is_cpu:
            return f"it runs on the CPU and the tensors are on {query.device}"
        if query.dtype not in DTYPES:
            return f"it has no {query.dtype}"
        chosen, why = current(query.dtype)
        if chosen is None:
            return why
        if problem.key.shape[1] == 0:
            return "there are no heads"
        tensors = (query, problem.key, problem.value, problem.bias, problem.sinks, problem.alibi)
        if not has_own_memory(*tensors, problem.allow):
            return "a tensor has no memory of its own: it is inside torch.vmap, or of a class that wraps others"
        if carries_tangent(*tensors):
            return "the tensors carry tangents of forward-mode differentiation, which it does not pass on"
        if is_negated(*tensors):
            return "a tensor's memory holds the negative of its numbers; call .resolve_neg() on it"
        if problem.bias is not None and not _adds(problem.bias.dtype, query.dtype):
            return f"it adds no {problem.bias.dtype} bias to {query.dtype}"
        return None

    def forward(self, problem: Problem) -> Result:
        result = _room(problem, lse_dtype(problem.query.dtype))
        extras = Extras(problem)
        library.forward(*_common(problem, extras), _tensors(problem, result))
        return result

    def backward(self, problem: Problem, result: Result, grad_out: Tensor, grad_lse: Tensor | None) -> Gradients:
        grads = [torch.empty_like(t).contiguous() for t in (problem.query, problem.key, problem.value)]
        extras = Extras(problem)
        more = MoreGradients(problem)
        if result.out.stride(-1) != 1:  # it came back from a hook on saved tensors, laid out anew
            result = Result(result.out.contiguous(), result.lse)
        grad_lse = None if grad_lse is None else grad_lse.to(wide(problem.query.dtype)).resolve_neg()
        grad_out = grad_out.resolve_neg()  # it is held until the library returns
        places = (four(grad_out), None if grad_lse is None else three(grad_lse), *map(four, grads), *more.places())
        library.backward(*_common(problem, extras), _tensors(problem, result), places)
        return Gradients(grads[0], grads[1], grads[2], *more.found())

    def forward_with_weights(self, problem: Problem, weights: Tensor) -> Result:
        result = _room(problem)
        extras = Extras(problem)
        library.weights(*_common(problem, extras), _tensors(problem, result), four(weights))
        return result

    def statistics(
        self, problem: Problem, lse: Tensor, rows: range, keys: range, wanted: Wanted, found: Statistics
    ) -> None:
        tensors = (four(problem.query), four(problem.key), None, None, three(lse), DTYPES[lse.dtype])
        extras = Extras(problem)  # holds what the library reads until it returns
        library.statistics(*_common(problem, extras), tensors, _places(rows, keys, wanted, found))

    def forward_with(self, problem: Problem, wanted: Wanted, found: Statistics) -> Result:
        length = problem.query.shape[2]
        result = _room(problem)
        extras = Extras(problem)
        places = _places(range(length), range(problem.key.shape[2]), wanted, found)
        library.forward(*_common(problem, extras), _tensors(problem, result), places)
        return result

    def refuses_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
        if not (x.is_cpu and weight.is_cpu):
            return "it runs on the CPU"
        if x.dtype not in DTYPES or x.dtype is torch.float64:
            return f"it has no linear layer of {x.dtype}"
        if weight.dtype is not x.dtype or (
            bias is not None and (bias.dtype is not x.dtype or not bias.is_contiguous())
        ):
            return "x, weight and bias are of several dtypes, or the bias has gaps"
        if weight.dim() != 2 or x.shape[-1] != weight.shape[1]:
            return "x does not fit the weight"
        if carries_tangent(x, weight, bias):
            return "the tensors carry tangents of forward-mode differentiation, which it does not pass on"
        if is_negated(x, weight, bias) or not has_own_memory(x, weight, bias):
            return "a tensor's memory does not hold its numbers"
        chosen, why = current(x.dtype)
        return why if chosen is None else None

    def linear(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, strides: tuple[int, ...], length: int
    ) -> None:
        rows, inputs = x.shape
        sizes = (rows, inputs, len(weight), max(1, length), max(1, out.shape[-1]), DTYPES[x.dtype])
        tensors = (
            (x.data_ptr(), 0, 0, *x.stride()),
            (weight.data_ptr(), 0, 0, *weight.stride()),
            (out.data_ptr(), *strides),
        )
        address = 0 if bias is None else bias.data_ptr()
        library.linear(index_of(x.dtype), torch.get_num_threads(), sizes, tensors, address)


def _adds(bias: torch.dtype, query: torch.dtype) -> bool:
    return bias in DTYPES and (bias is not torch.float64 or query is torch.float64)


def _places(rows: range, keys: range, wanted: Wanted, found: Statistics) -> tuple[int, ...]:
    """Where statistics go, in the order of native/binding/binding.cpp."""
    cells = wanted.cells
    rowwise = (found.entropy, found.maximum, found.squares, found.mass, found.distance, found.spread)
    return (
        *(rows.start, rows.stop, keys.start, keys.stop),
        *map(_address, rowwise),
        wanted.offset,
        _address(found.received),
        wanted.topk,
        *map(_address, (found.best, found.best_keys)),
        *((0, 0) if cells is None else (len(cells.rows), len(cells.keys))),
        *((0, 0) if cells is None else (cells.rows.data_ptr(), cells.keys.data_ptr())),
        _address(found.map),
        0 if cells is None else int(cells.by_maximum),
    )


def _address(tensor: Tensor) -> int:
    """0 for an empty tensor, which is not wanted. It is not asked: made inside a transform, it could not answer."""
    return tensor.data_ptr() if tensor.numel() else 0


def _common(problem: Problem, extras: Extras) -> tuple[object, ...]:
    """The arguments that forward and backward share, as native/binding/binding.cpp names them."""
    batch, heads, length, width = problem.query.shape
    _, kv_heads, keys, value_width = problem.value.shape
    low, high = problem.band
    reach = -_UNBOUNDED if low is None else low, _UNBOUNDED if high is None else high
    sizes = (batch, heads, kv_heads, length, keys, width, value_width, DTYPES[problem.query.dtype], *reach)
    return index_of(problem.query.dtype), torch.get_num_threads(), sizes, problem.scale, extras.places()


def _tensors(problem: Problem, result: Result) -> tuple[object, ...]:
    tensors = (problem.query, problem.key, problem.value, result.out)
    return (*map(four, tensors), three(result.lse), DTYPES[result.lse.dtype])


def _room(problem: Problem, dtype: torch.dtype = torch.float32) -> Result:
    """Output and lse of a problem, not yet written; the lse in `dtype`."""
    batch, heads, length, _ = problem.query.shape
    lse = problem.query.new_empty((batch, heads, length), dtype=dtype)
    return Result(_like_query(problem.query, problem.value.shape[-1]), lse)


def _like_query(query: Tensor, width: int) -> Tensor:
    """An empty output laid out as the query is, so that what follows may merge the heads again for nothing."""
    batch, heads, length, query_width = query.shape
    if query.stride(1) < query.stride(2):
        return query.new_empty(batch, length, heads, width).transpose(1, 2)
    if width == query_width and query.is_contiguous():
        return torch.empty_like(query)  # half the price
    return query.new_empty(batch, heads, length, width)
