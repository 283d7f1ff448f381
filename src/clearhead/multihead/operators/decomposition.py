"""`torch.ops.clearhead.attend` in operators that other runtimes know: for ONNX, and for `run_decompositions`."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._decomp import register_decomposition

from clearhead.kernels import Problem, Result
from clearhead.kernels.blockwise import NOTHING
from clearhead.kernels.places import wide
from clearhead.multihead import traced
from clearhead.multihead.operators import double_backward


def run(problem: Problem, dropout_p: float) -> Result:
    """Output and lse.

    What torch's scaled_dot_product_attention can say becomes that one operator, which ONNX has as `Attention` from
    opset 23 on. A soft cap, sinks, slopes and dropout are written out. An exported graph keeps the steps it uses.

    Memory: O(B·H·L·S).
    """
    key, value = (_repeated(x, problem.group) for x in (problem.key, problem.value))
    dtype = wide(problem.query.dtype)
    bias = None if problem.bias is None else problem.bias.to(dtype)
    widened = dataclasses.replace(problem, query=problem.query.to(dtype), bias=bias)
    out, lse = double_backward.whole(widened, key.to(dtype), value.to(dtype), dropout_p)
    written_out = problem.softcap is not None or problem.sinks is not None or problem.alibi is not None
    if written_out or dropout_p > 0:
        return Result(out.to(problem.query.dtype), lse)
    return Result(_as_one_operator(problem, key, value), lse)


@register_decomposition(torch.ops.clearhead.attend.default)
def _(
    query: Tensor, key: Tensor, value: Tensor, allow: Tensor | None, bias: Tensor | None, sinks: Tensor | None,
    alibi: Tensor | None, seed: Tensor | None, scale: float, low: int | None, high: int | None, softcap: float | None,
    dropout_p: float, alibi_offset: int, kernel: str | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Found by `torch.onnx.export(dynamo=True)`."""
    problem = traced.problem_of(
        query, key, value, allow, bias, sinks, alibi, None, scale, low, high, softcap, 0.0, alibi_offset
    )
    result = run(problem, dropout_p)
    return result.out, result.lse.to(traced.lse_dtype_of(query))


def _as_one_operator(problem: Problem, key: Tensor, value: Tensor) -> Tensor:
    mask = _mask(problem)
    causal = mask is None and problem.band == (None, 0)
    if not causal:
        mask = _within_band(problem, mask)
    out = F.scaled_dot_product_attention(problem.query, key, value, mask, is_causal=causal, scale=problem.scale)
    if mask is None:
        return out
    # Other runtimes give NaN or a mean in a row that may attend nothing.
    empty = ~mask.any(-1, keepdim=True) if mask.dtype is torch.bool else (mask < NOTHING).all(-1, keepdim=True)
    return out.masked_fill(empty, 0)


def _mask(problem: Problem) -> Tensor | None:
    """`allow` and `bias` in one. The last axis has all keys: where it is shorter ONNX pads it and torch repeats it."""
    allow, bias = problem.allow, problem.bias
    if bias is not None:
        bias = bias.to(problem.query.dtype)
    mask = bias if allow is None else allow if bias is None else bias.masked_fill(~allow, -torch.inf)
    return None if mask is None else mask.expand(*mask.shape[:-1], problem.key.shape[2])


def _within_band(problem: Problem, mask: Tensor | None) -> Tensor | None:
    """The mask, closed outside the band of a window or of a causal mask."""
    low, high = problem.band
    if low is None and high is None:
        return mask
    device = problem.query.device
    keys, queries = (torch.arange(x.shape[2], device=device) for x in (problem.key, problem.query))
    apart = keys - queries[:, None]
    inside = apart >= apart if low is None else apart >= low
    inside = inside if high is None else inside & (apart <= high)
    if mask is None:
        return inside
    return mask & inside if mask.dtype is torch.bool else mask.masked_fill(~inside, -torch.inf)


def _repeated(x: Tensor, group: int) -> Tensor:
    """(B, H_kv, S, D) -> (B, H, S, D)."""
    return x if group == 1 else x.unsqueeze(2).expand(-1, -1, group, -1, -1).flatten(1, 2)
