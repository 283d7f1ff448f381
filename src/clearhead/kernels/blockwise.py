"""Attention in plain torch, a block of queries at a time: every field of Problem, in any float dtype.

The reference kernel is this file at float64. The torch kernel falls back on it for what SDPA cannot say.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from clearhead.kernels import dropout
from clearhead.kernels.precision import in_own_dtype
from clearhead.kernels.problem import Gradients, Problem, Result

BLOCK = 1 << 20  # logits held at once: 4 MiB in float32, and some ten such tensors live at a time
NOTHING = -1e37  # a row of which no logit is more may attend nothing, as if all were -inf: the native kernel's limit


@in_own_dtype
def forward(problem: Problem, dtype: torch.dtype) -> Result:
    """Compute output and lse, with every intermediate in `dtype`.

    Memory: O(inputs + outputs) and a few blocks of 2²⁰ logits (or one row of B·H·S, if that is more).
    """
    query, key, value = (t.to(dtype) for t in (problem.query, problem.key, problem.value))
    batch, heads, length, _ = query.shape
    out = query.new_empty(batch, heads, length, value.shape[-1])
    lse = query.new_empty(batch, heads, length)
    for rows in _blocks(problem):
        logits, _ = _logits(problem, query, key, rows)
        total = torch.logsumexp(logits, -1)
        total = total.masked_fill(total < NOTHING, -torch.inf)
        if problem.sinks is not None:
            total = torch.logaddexp(total, problem.sinks.to(dtype)[:, None])
        weights = _summing(_weights(logits, total), problem)
        keep = _kept(problem, rows)
        if keep is not None:
            weights = weights * keep.to(dtype) / (1 - problem.dropout_p)
        out[:, :, rows.start : rows.stop] = _ungroup(_group(weights, problem) @ value, heads)
        lse[:, :, rows.start : rows.stop] = total
    return Result(out.to(problem.query.dtype), lse)


@in_own_dtype
def backward(
    problem: Problem, result: Result, grad_out: Tensor, grad_lse: Tensor | None, dtype: torch.dtype
) -> Gradients:
    """Compute all gradients, with every intermediate in `dtype`. Memory: as forward, and the gradients.

    Source: Dao 2023 (FlashAttention-2), alg. 2; with P the weights, dP = dO Vᵀ and δ = Σⱼ P dP, the gradient of a
    logit is P (dP - δ + d lse), and that of a sink is its own weight times (d lse - δ).
    """
    query, key, value = (t.to(dtype) for t in (problem.query, problem.key, problem.value))
    heads = query.shape[1]
    grad_query, grad_key, grad_value = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
    grad_bias = None if problem.bias is None else torch.zeros_like(problem.bias, dtype=dtype)
    grad_sinks = None if problem.sinks is None else torch.zeros_like(problem.sinks, dtype=dtype)
    grad_alibi = None if problem.alibi is None else torch.zeros_like(problem.alibi, dtype=dtype)

    for rows in _blocks(problem):
        here = (slice(None), slice(None), slice(rows.start, rows.stop))
        lse = result.lse[here].to(dtype)
        logits, slope = _logits(problem, query, key, rows)
        weights = _summing(_weights(logits, lse), problem)
        upstream = _group(grad_out[here].to(dtype), problem)
        grad_weights = _ungroup(upstream @ value.mT, heads)
        keep = _kept(problem, rows)
        dropped = weights
        if keep is not None:
            factor = keep.to(dtype) / (1 - problem.dropout_p)
            dropped, grad_weights = weights * factor, grad_weights * factor
        grad_value += _group(dropped, problem).mT @ upstream

        # A row that may attend nothing has a constant output and lse: whatever comes from above stops here.
        shift = (weights * grad_weights).sum(-1)
        if grad_lse is not None:
            shift = shift - grad_lse[here].to(dtype)
        shift = shift.masked_fill(lse == -torch.inf, 0)
        grad_logits = weights * (grad_weights - shift[..., None])
        if grad_sinks is not None and problem.sinks is not None:
            weight = _weights(problem.sinks.to(dtype)[None, :, None, None].expand(*lse.shape, 1), lse)[..., 0]
            grad_sinks -= (weight * shift).sum((0, 2))
        if grad_bias is not None:
            part = rows_of(grad_bias, rows, query.shape[2])
            part += grad_logits.sum_to_size(part.shape)
        if grad_alibi is not None:
            grad_alibi -= (grad_logits * _distance(problem, rows)).sum((0, 2, 3))
        if slope is not None:
            grad_logits = grad_logits * slope
        grouped = _group(grad_logits, problem)
        grad_query[here] = _ungroup(grouped @ key, heads) * problem.scale
        grad_key += grouped.mT @ _group(query[here], problem) * problem.scale

    return Gradients(
        grad_query.to(problem.query.dtype),
        grad_key.to(problem.key.dtype),
        grad_value.to(problem.value.dtype),
        grad_bias if grad_bias is None or problem.bias is None else grad_bias.to(problem.bias.dtype),
        grad_sinks if grad_sinks is None or problem.sinks is None else grad_sinks.to(problem.sinks.dtype),
        grad_alibi if grad_alibi is None or problem.alibi is None else grad_alibi.to(problem.alibi.dtype),
    )


def rows_of(tensor: Tensor, rows: range, length: int) -> Tensor:
    """Take a block of rows of something broadcastable to (B, H, L, S), as a 4-axis view."""
    full = tensor.view((1,) * (4 - tensor.dim()) + tuple(tensor.shape))
    return full if full.shape[2] != length else full[:, :, rows.start : rows.stop]


def _blocks(problem: Problem) -> Iterator[range]:
    """Split the queries so that one block's logits are about BLOCK numbers."""
    batch, heads, length, _ = problem.query.shape
    if batch * heads == 0:
        return
    step = max(1, BLOCK // max(1, batch * heads * problem.key.shape[2]))
    for start in range(0, length, step):
        yield range(start, min(start + step, length))


def _logits(problem: Problem, query: Tensor, key: Tensor, rows: range) -> tuple[Tensor, Tensor | None]:
    """The masked logits of a block, (B, H, rows, S), and the slope of the soft cap where there is one."""
    length, keys = query.shape[2], key.shape[2]
    block = _group(query[:, :, rows.start : rows.stop], problem)
    logits = _ungroup(block @ key.mT, query.shape[1]) * problem.scale
    slope = None
    if problem.softcap is not None:
        tanh = torch.tanh(logits / problem.softcap)
        logits, slope = tanh * problem.softcap, 1 - tanh * tanh
    if problem.bias is not None:
        logits = logits + rows_of(problem.bias, rows, length).to(logits.dtype)
    if problem.alibi is not None:
        logits = logits - problem.alibi.to(logits.dtype)[:, None, None] * _distance(problem, rows)
    if problem.allow is not None:
        logits = logits.masked_fill(~rows_of(problem.allow, rows, length), -torch.inf)
    low, high = problem.band
    if low is not None or high is not None:
        apart = torch.arange(keys, device=query.device) - torch.arange(
            rows.start, rows.stop, device=query.device
        ).unsqueeze(-1)
        if low is not None:
            logits = logits.masked_fill(apart < low, -torch.inf)
        if high is not None:
            logits = logits.masked_fill(apart > high, -torch.inf)
    return logits, slope


def _distance(problem: Problem, rows: range) -> Tensor:
    """(rows, S), int64: how far each key is from each query of a block, as ALiBi counts."""
    device = problem.query.device
    places = torch.arange(rows.start, rows.stop, device=device) + problem.alibi_offset
    return (places[:, None] - torch.arange(problem.key.shape[2], device=device)).abs()


def _weights(logits: Tensor, lse: Tensor) -> Tensor:
    """exp(logits - lse), and 0 in a row whose lse is -inf."""
    return torch.exp(logits - lse.masked_fill(lse == -torch.inf, 0)[..., None])


def _summing(weights: Tensor, problem: Problem) -> Tensor:
    """logits - lse loses digits where both are in the hundreds, and all of them at -1e9, which people add to mask a
    whole row; a row that sums to 1 gets them back. With sinks it does not."""
    if problem.sinks is not None:
        return weights
    return weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def _kept(problem: Problem, rows: range) -> Tensor | None:
    if problem.dropout_p == 0:
        return None
    batch, heads, _, _ = problem.query.shape
    keep = dropout.kept(problem.seed, batch, heads, rows, problem.key.shape[2], problem.dropout_p)
    return keep.to(problem.query.device)


def _group(tensor: Tensor, problem: Problem) -> Tensor:
    """(B, H, l, X) -> (B, H_kv, group·l, X): query heads that share a key head stand one under the other."""
    batch, _, rows, width = tensor.shape
    return tensor.reshape(batch, problem.key.shape[1], problem.group * rows, width)


def _ungroup(tensor: Tensor, heads: int) -> Tensor:
    """(B, H_kv, group·l, X) -> (B, H, l, X)."""
    batch, kv_heads, rows, width = tensor.shape
    return tensor.reshape(batch, heads, kv_heads * rows // heads, width)
