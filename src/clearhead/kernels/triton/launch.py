"""Launch the Triton kernels for a problem. Imports Triton; `kernel.py` imports this when it first computes."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from clearhead.kernels.precision import lse_dtype
from clearhead.kernels.problem import Gradients, Problem, Result
from clearhead.kernels.triton import backward as backward_pass
from clearhead.kernels.triton import forward as forward_pass
from clearhead.kernels.triton import statistics as second_pass
from clearhead.kernels.triton.blocks import BACKWARD, FORWARD, INTERPRETED, SECOND_PASS, candidates, is_interpreted
from clearhead.kernels.triton.tile import Sizes, Strided, Terms
from clearhead.spec import Attention, dropout, four_axes


def forward(problem: Problem, numbers: forward_pass.RowStatistics) -> Result:
    """Compute output and lse, and the wanted statistics of rows."""
    query, value = problem.query, problem.value
    out = query.new_empty(*query.shape[:3], value.shape[-1])
    lse = query.new_empty(query.shape[:3], dtype=lse_dtype(query.dtype))
    call = Call(problem)
    call.launch(
        FORWARD, forward_pass.forward, lambda meta: _tiles(query.shape[2], meta["ROWS"]) * call.heads,
        call.query, call.key, call.value, strided(out), rowwise(lse), call.terms, numbers, call.sizes,
        VALUE_WIDTH=call.value_width,
    )  # fmt: skip
    return Result(out, lse)


def backward(problem: Problem, result: Result, grad_out: Tensor, grad_lse: Tensor | None) -> Gradients:
    """Compute all gradients: of queries first, with each row's shift, then of keys, then of a bias that learns."""
    call, attention = Call(problem), problem.attention
    query, key, value = problem.query, problem.key, problem.value
    learning = attention.learning()
    grads = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (query, key, value)]
    grad_query, grad_key, grad_value = map(strided, grads)
    shifts = _rows(problem)
    alibi_rows = _rows(problem) if "alibi" in learning else None
    scale_rows = _rows(problem) if "head_scale" in learning else None
    upstream, lse = strided(grad_out.resolve_neg()), rowwise(result.lse)
    grad_of_lse = None if grad_lse is None else rowwise(grad_lse.resolve_neg())
    widths = {"VALUE_WIDTH": call.value_width}
    call.launch(
        BACKWARD, backward_pass.backward_query, lambda meta: _tiles(query.shape[2], meta["ROWS"]) * call.heads,
        call.query, call.key, call.value, strided(result.out), lse, upstream, grad_of_lse, grad_query, shifts,
        alibi_rows, scale_rows, call.terms, call.sizes, **widths,
    )  # fmt: skip
    call.launch(
        BACKWARD, backward_pass.backward_key, lambda meta: _tiles(key.shape[2], meta["KEYS"]) * call.kv_heads,
        call.query, call.key, call.value, lse, upstream, grad_key, grad_value, shifts, call.terms, call.sizes, **widths,
    )  # fmt: skip
    learned: dict[str, Tensor] = {}
    for name, rows in (("alibi", alibi_rows), ("head_scale", scale_rows)):
        if rows is not None:
            learned[name] = rows.sum((0, 2)).to(getattr(attention, name).dtype)
    if attention.sinks is not None and "sinks" in learning:
        learned["sinks"] = _grad_sinks(attention.sinks, result.lse, shifts)
    if attention.bias is not None and "bias" in learning:
        learned["bias"] = _grad_bias(call, problem, attention.bias, lse, upstream, shifts)
    return Gradients(grads[0], grads[1], grads[2], learned)


def _grad_sinks(sinks: Tensor, lse: Tensor, shifts: Tensor) -> Tensor:
    """Return the gradient of the sinks: a sink's weight, exp(sink - lse), times -shift, summed over rows."""
    share = torch.exp(sinks.to(lse.dtype)[:, None] - lse)
    return -(share * shifts).sum((0, 2)).to(sinks.dtype)


def _grad_bias(call: "Call", problem: Problem, own: Tensor, lse: Strided, upstream: Strided, shifts: Tensor) -> Tensor:
    """Return the gradient of a bias, in its own shape and dtype: summed over the axes along which it broadcasts."""
    bias = four_axes(own)
    batch, heads = problem.shape[:2]
    grad = torch.empty(bias.shape, dtype=torch.float32, device=bias.device)
    of_batch, of_heads, of_length, of_keys = bias.shape
    shared = (batch if of_batch == 1 else 1) * (heads if of_heads == 1 else 1)

    def programs(meta: dict[str, int]) -> int:
        return _tiles(of_length, meta["ROWS"]) * _tiles(of_keys, meta["KEYS"]) * of_batch * of_heads

    call.launch(
        BACKWARD, backward_pass.backward_bias, programs, call.query, call.key, call.value, lse, upstream,
        strided(grad), shifts, call.terms, call.sizes, of_batch, of_heads, of_length, of_keys, shared,
        VALUE_WIDTH=call.value_width,
    )  # fmt: skip
    return grad.view(own.shape).to(own.dtype)


def row_statistics(problem: Problem, lse: Tensor, outputs: second_pass.RowOutputs, part: second_pass.Part) -> None:
    """Write the wanted statistics of the part's rows."""
    call, rows = Call(problem), part.last_row - part.first_row
    call.launch(
        SECOND_PASS, second_pass.row_statistics, lambda meta: _tiles(rows, meta["ROWS"]) * call.heads,
        call.query, call.key, rowwise(lse), call.terms, outputs, call.sizes, part,
        TOP=triton.next_power_of_2(part.top) if part.top else 0,
    )  # fmt: skip


def column_sums(problem: Problem, lse: Tensor, part: second_pass.Part) -> Tensor:
    """Return the weight each key receives from the part's queries, (B, H, S) float32."""
    call, (batch, heads, _, keys) = Call(problem), problem.shape
    received = torch.empty(batch, heads, keys, dtype=torch.float32, device=lse.device)
    call.launch(
        SECOND_PASS, second_pass.column_sums, lambda meta: _tiles(keys, meta["KEYS"]) * call.heads,
        call.query, call.key, rowwise(lse), received, call.terms, call.sizes, part,
    )  # fmt: skip
    return received


def map_cells(
    problem: Problem, lse: Tensor, rows: Tensor, keys: Tensor, part: second_pass.Part, by_maximum: bool
) -> Tensor:
    """Return a map of the part's queries, (B, H, len(rows), len(keys)) float32."""
    call, (batch, heads, _, _) = Call(problem), problem.shape
    down, across = len(rows), len(keys)
    cells = torch.empty(batch, heads, down, across, dtype=torch.float32, device=lse.device)
    call.launch(
        SECOND_PASS, second_pass.map_cells, lambda meta: down * across * call.heads,
        call.query, call.key, rowwise(lse), cells, rows.to(lse.device), keys.to(lse.device), call.terms, call.sizes,
        part, down, across, BY_MAXIMUM=by_maximum,
    )  # fmt: skip
    return cells


class Call:
    """The arguments of a problem that every kernel takes."""

    def __init__(self, problem: Problem) -> None:
        query, key, value, attention = problem.query, problem.key, problem.value, problem.attention
        batch, heads, length, width = query.shape
        kv_heads, keys = key.shape[1:3]
        self.query, self.key, self.value = strided(query), strided(key), strided(value)
        self.heads, self.kv_heads = batch * heads, batch * kv_heads
        self.width, self.value_width = padded(width), padded(value.shape[-1])
        self._device, self._bytes = query.device, max(self.width, self.value_width) * query.element_size()
        low, high = attention.reach
        self.sizes = Sizes(heads, kv_heads, length, keys, low, high, attention.first_query, attention.first_key)
        self.terms = _terms(problem)

    def launch(self, kind: str, kernel: Any, programs: Callable[[Any], int], *arguments: Any, **constants: Any) -> None:
        """Run a kernel with the fastest blocks of the table, which Triton's autotuner measures once."""
        constants = {"WIDTH": self.width, "PRECISION": _precision(), **constants}

        def grid(meta: dict[str, int]) -> tuple[int]:
            return (programs(meta),)

        if is_interpreted():
            blocks = INTERPRETED[kind]
            kernel[grid](*arguments, **constants, ROWS=blocks.rows, KEYS=blocks.keys)
            return
        with _on(self._device):
            tuned(kernel, kind, self._bytes)[grid](*arguments, **constants, **OPTIONS)


# A product and a sum in one rounding, said outright: Triton 3.9 warns where it is not, and the default of 3.10 is two.
OPTIONS = {"enable_fp_fusion": True}


@cache
def tuned(kernel: Any, kind: str, row_bytes: int) -> Any:
    """Return the kernel with an autotuner over the blocks of the table; CLEARHEAD_TUNE=0 uses the first of them."""
    configs = [
        triton.Config({"ROWS": b.rows, "KEYS": b.keys}, num_warps=b.warps, num_stages=b.stages)
        for b in candidates(kind, row_bytes)
    ]
    if os.environ.get("CLEARHEAD_TUNE") == "0":
        configs = configs[:1]
    constants = [name for name in ("WIDTH", "VALUE_WIDTH", "TOP") if name in kernel.arg_names]
    return triton.autotune(configs, key=constants)(kernel)


def strided(tensor: Tensor) -> Strided:
    """Return a tensor with four axes in the form the kernels take."""
    batch, head, row, column = tensor.stride()
    return Strided(tensor.detach(), batch, head, row, column)


def rowwise(tensor: Tensor) -> Strided:
    """Return (B, H, L) in the form the kernels take."""
    batch, head, row = tensor.stride()
    return Strided(tensor.detach(), batch, head, row, 0)


def padded(width: int) -> int:
    """Return the width of a head's tile: a power of 2, at least the 16 of a tensor core."""
    return max(16, triton.next_power_of_2(width))


def _terms(problem: Problem) -> Terms:
    attention, shape = problem.attention, problem.shape

    def pairs(mask: Tensor | None) -> Strided | None:
        return None if mask is None else strided(four_axes(mask).expand(shape))

    def per_head(numbers: Tensor | None) -> Tensor | None:
        return None if numbers is None else numbers.detach().float().contiguous()

    drops = attention.dropout_p > 0
    width, value_width = problem.query.shape[-1], problem.value.shape[-1]
    return Terms(
        width=None if padded(width) == width else width,
        value_width=None if padded(value_width) == value_width else value_width,
        scale=attention.scale,
        head_scale=per_head(attention.head_scale),
        softcap=attention.softcap,
        bias=pairs(attention.bias),
        allow=pairs(None if attention.allow is None else attention.allow.view(torch.uint8)),
        alibi=per_head(attention.alibi),
        sinks=per_head(attention.sinks),
        head_words=_head_words(attention, shape[0] * shape[1], problem.query.device) if drops else None,
        threshold=dropout.threshold(attention.dropout_p) if drops else None,
        keep_factor=1 / (1 - attention.dropout_p) if drops else None,
    )


def _head_words(attention: Attention, heads: int, device: torch.device) -> Tensor:
    words = dropout.head_words(attention, heads, device)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def _rows(problem: Problem) -> Tensor:
    return torch.empty(problem.query.shape[:3], dtype=torch.float32, device=problem.query.device)


def _tiles(count: int, size: int) -> int:
    return -(-count // size)


def _precision() -> str:
    """Return how float32 is multiplied: "ieee", or "tf32" if torch.set_float32_matmul_precision allows it."""
    if is_interpreted():
        return "widened"
    try:
        return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    except RuntimeError:  # torch.backends.*.fp32_precision was set to a value without a name here
        return "ieee"


def _on(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
