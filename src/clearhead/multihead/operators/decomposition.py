"""`torch.ops.clearhead.attend` decomposed into torch's operators, for ONNX and for `run_decompositions`."""

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._decomp import register_decomposition

from clearhead.kernels import Problem, Result
from clearhead.kernels.portable.blockwise import EMPTY
from clearhead.kernels.precision import wide
from clearhead.multihead.operators import custom_op, double_backward
from clearhead.spec.band import outside


def run(problem: Problem) -> Result:
    """Compute output and lse in torch's operators.

    What torch's scaled_dot_product_attention supports becomes that operator, which ONNX has as `Attention` since opset
    23. A soft cap, sinks, slopes and dropout are computed in single steps. An exported graph keeps only the steps whose
    results are used.

    Memory: O(B·H·L·S).
    """
    key, value = map(problem.per_query_head, (problem.key, problem.value))
    dtype = wide(problem.query.dtype)
    attention = problem.attention
    widened = dataclasses.replace(problem, query=problem.query.to(dtype), attention=attention.cast(dtype))
    out, lse = double_backward.whole(widened, key.to(dtype), value.to(dtype))
    if attention.dropout_p > 0 or attention.softcap is not None or not attention.tensors().keys() <= {"allow", "bias"}:
        return Result(out.to(problem.query.dtype), lse)
    return Result(_as_one_operator(problem, key, value), lse)


@register_decomposition(torch.ops.clearhead.attend.default)
def _(*inputs: Any) -> tuple[Tensor, Tensor]:
    """Called by `torch.onnx.export(dynamo=True)`. Dropout is torch's here, which has no seed argument."""
    given = dict(zip(custom_op.INPUTS, inputs, strict=True))
    result = run(custom_op.problem_of(given))
    return result.out, result.lse.to(custom_op.lse_dtype_of(given["query"]))


def _as_one_operator(problem: Problem, key: Tensor, value: Tensor) -> Tensor:
    mask = _mask(problem)
    causal = mask is None and problem.attention.is_causal
    if not causal:
        mask = _within_band(problem, mask)
    out = F.scaled_dot_product_attention(
        problem.query, key, value, mask, is_causal=causal, scale=problem.attention.scale
    )
    if mask is None:
        return out
    # Other runtimes give NaN or the mean of all values in an empty row.
    empty = ~mask.any(-1, keepdim=True) if mask.dtype is torch.bool else (mask < EMPTY).all(-1, keepdim=True)
    return out.masked_fill(empty, 0)


def _mask(problem: Problem) -> Tensor | None:
    """Combine `allow` and `bias`. The last axis is expanded to all keys: ONNX would pad it where torch repeats it."""
    allow, bias = problem.attention.allow, problem.attention.bias
    if bias is not None:
        bias = bias.to(problem.query.dtype)
    mask = bias if allow is None else allow if bias is None else bias.masked_fill(~allow, -torch.inf)
    return None if mask is None else mask.expand(*mask.shape[:-1], problem.key.shape[2])


def _within_band(problem: Problem, mask: Tensor | None) -> Tensor | None:
    """Return the mask restricted to the band of a window or of a causal mask."""
    low, high = problem.attention.reach
    if low is None and high is None:
        return mask
    keys, queries = (torch.arange(x.shape[2], device=x.device) for x in (problem.key, problem.query))
    inside = ~outside((low, high), queries[:, None], keys)
    if mask is None:
        return inside
    return mask & inside if mask.dtype is torch.bool else mask.masked_fill(~inside, -torch.inf)
