"""Kernel "native": our C++ on the CPU (see native/). `cpu_targets.py` chooses the compiled copy that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clearhead.kernels.capability import Capability
from clearhead.kernels.native.call import DTYPES, Call, CallGradients, address, four
from clearhead.kernels.native.cpu_targets import current, index_of, targets
from clearhead.kernels.native.library import library, missing
from clearhead.kernels.precision import lse_dtype
from clearhead.kernels.problem import Gradients, Problem, Result, contiguous_rows, memory_reason

if TYPE_CHECKING:
    from clearhead.kernels.second_pass import Statistics, Wanted


_BY_ROWS = 16  # queries at most whose backward pass computes their lse itself: kFewGradients of the widest target


def peak(steps: int = 1 << 20) -> float:
    """Run multiply-adds on registers, on all of torch's threads; return the number of operations.

    Time it to measure the machine's peak arithmetic. Runs tens of milliseconds.
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
        return missing or None

    def describe(self) -> str:
        chosen, why = current()
        name = why if chosen is None else f"target {chosen.name}, {why}"
        others = ", ".join(t.name for t in targets() if t.runs_here and t != chosen)
        return f"{name}; also runs here: {others or 'nothing else'}"

    def refuses(self, problem: Problem, capability: Capability = Capability.FORWARD) -> str | None:
        query = problem.query
        if capability in Capability.STATISTICS | Capability.WEIGHTS and query.dtype is torch.float64:
            return "it computes no statistics and no weights in float64"
        if not query.is_cpu:
            return f"it runs on the CPU, but the tensors are on {query.device}"
        if query.dtype not in DTYPES:
            return f"it does not support {query.dtype}"
        chosen, why = current(query.dtype)
        if chosen is None:
            return why
        if problem.key.shape[1] == 0:
            return "there are no heads"
        bias = problem.attention.bias
        tensors = (query, problem.key, problem.value, *problem.attention.tensors().values())
        unreadable = memory_reason(*tensors)
        if unreadable is not None:
            return unreadable
        if bias is not None and not _adds(bias.dtype, query.dtype):
            return f"it does not support a {bias.dtype} bias with {query.dtype}"
        return None

    def forward(self, problem: Problem) -> Result:
        result = _empty_result(problem, lse_dtype(problem.query.dtype))
        call = Call(library, problem, result.out, result.lse)
        library.forward(*_target(problem.query.dtype), call.attention)
        return result

    def backward(self, problem: Problem, result: Result, grad_out: Tensor, grad_lse: Tensor | None) -> Gradients:
        out = contiguous_rows(result.out)  # owned until the library returns
        call = Call(library, problem, out, result.lse)
        gradients = CallGradients(library, problem, grad_out, grad_lse)
        library.backward(*_target(problem.query.dtype), call.attention, gradients.buffers)
        return gradients.result()

    def takes_some_keys(self, problem: Problem) -> bool:
        return problem.query.shape[2] > _BY_ROWS

    def forward_with_weights(
        self, problem: Problem, weights: Tensor, wanted: Wanted | None = None, statistics: Statistics | None = None
    ) -> Result:
        result = _empty_result(problem)
        call = Call(library, problem, result.out, result.lse)
        outputs = None if wanted is None or statistics is None else _all_outputs(problem, wanted, statistics)
        library.weights(*_target(problem.query.dtype), call.attention, four(weights), outputs)
        return result

    def statistics(
        self, problem: Problem, lse: Tensor, rows: range, keys: range, wanted: Wanted, statistics: Statistics
    ) -> None:
        call = Call(library, problem, None, lse)
        outputs = _outputs(rows, keys, wanted, statistics)
        library.statistics(*_target(problem.query.dtype), call.attention, outputs)

    def forward_with(self, problem: Problem, wanted: Wanted, statistics: Statistics) -> Result:
        result = _empty_result(problem)
        call = Call(library, problem, result.out, result.lse)
        outputs = _all_outputs(problem, wanted, statistics)
        library.forward(*_target(problem.query.dtype), call.attention, outputs)
        return result

    def refuses_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
        if not (x.is_cpu and weight.is_cpu):
            return "it runs on the CPU"
        if x.dtype not in DTYPES or x.dtype is torch.float64:
            return f"it does not support a linear layer in {x.dtype}"
        if weight.dtype is not x.dtype or (
            bias is not None and (bias.dtype is not x.dtype or not bias.is_contiguous())
        ):
            return "x, weight and bias have different dtypes, or the bias is not contiguous"
        if weight.dim() != 2 or x.shape[-1] != weight.shape[1]:
            return "x does not fit the weight"
        unreadable = memory_reason(x, weight, bias)
        if unreadable is not None:
            return unreadable
        chosen, why = current(x.dtype)
        return why if chosen is None else None

    def linear(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, strides: tuple[int, ...], length: int
    ) -> None:
        layer = library.Linear()
        layer.rows, layer.inputs = x.shape
        layer.outputs, layer.length, layer.width = len(weight), max(1, length), max(1, out.shape[-1])
        layer.dtype = DTYPES[x.dtype]
        layer.x = (x.data_ptr(), 0, 0, *x.stride())
        layer.weight = (weight.data_ptr(), 0, 0, *weight.stride())
        layer.out = (out.data_ptr(), *strides)
        layer.bias = 0 if bias is None else bias.data_ptr()
        library.linear(*_target(x.dtype), layer)


def _adds(bias: torch.dtype, query: torch.dtype) -> bool:
    return bias in DTYPES and (bias is not torch.float64 or query is torch.float64)


def _target(dtype: torch.dtype) -> tuple[int, int]:
    """Return the index of the target in use for a dtype, and torch's number of threads."""
    return index_of(dtype), torch.get_num_threads()


def _all_outputs(problem: Problem, wanted: Wanted, statistics: Statistics) -> Any:
    _, _, length, keys = problem.shape
    return _outputs(range(length), range(keys), wanted, statistics)


def _outputs(rows: range, keys: range, wanted: Wanted, statistics: Statistics) -> Any:
    """Return the Statistics of native/arguments.h: the addresses to which the library writes."""
    outputs = library.Statistics()
    outputs.first_row, outputs.last_row = rows.start, rows.stop
    outputs.first_key, outputs.last_key = keys.start, keys.stop
    for name in ("entropy", "maximum", "squares", "mass", "distance", "spread", "received", "map"):
        setattr(outputs, name, address(getattr(statistics, name)))
    outputs.offset, outputs.top = wanted.offset, wanted.topk
    outputs.top_weights, outputs.top_keys = address(statistics.best), address(statistics.best_keys)
    cells = wanted.cells
    if cells is not None:
        outputs.cells_down, outputs.cells_across = len(cells.rows), len(cells.keys)
        outputs.row_edges, outputs.key_edges = cells.rows.data_ptr(), cells.keys.data_ptr()
        outputs.by_maximum = cells.by_maximum
    return outputs


def _empty_result(problem: Problem, dtype: torch.dtype = torch.float32) -> Result:
    """Allocate output and lse of a problem; the lse in `dtype`."""
    batch, heads, length, _ = problem.query.shape
    lse = problem.query.new_empty((batch, heads, length), dtype=dtype)
    return Result(_like_query(problem.query, problem.value.shape[-1]), lse)


def _like_query(query: Tensor, width: int) -> Tensor:
    """Allocate an output with the query's memory layout, so that merging the heads afterwards needs no copy."""
    batch, heads, length, query_width = query.shape
    if query.stride(1) < query.stride(2):
        return query.new_empty(batch, length, heads, width).transpose(1, 2)
    if width == query_width and query.is_contiguous():
        return torch.empty_like(query)  # takes half as long
    return query.new_empty(batch, heads, length, width)
