"""Attention in plain torch, one block of queries at a time: every field of an attention, in any float dtype.

The reference kernel is this file in float64. The torch kernel falls back to it if SDPA cannot compute a problem.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from clearhead.kernels.precision import in_own_dtype
from clearhead.kernels.problem import Gradients, Problem, Result
from clearhead.spec import LEARNABLE, Attention, cap_slope, distances, four_axes, logits
from clearhead.spec.dropout import kept

BLOCK = 1 << 20  # logits per block: 4 MiB in float32, and about ten such tensors exist at a time
EMPTY = -1e37  # a row whose logits are all below this is empty, as with -inf; the native kernel has the same limit


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
        attention = problem.attention.part(rows, slice(None)).cast(dtype)
        block = logits(attention, _scaled(problem, attention, query[:, :, rows], key))
        total = torch.logsumexp(block, -1)
        total = total.masked_fill(total < EMPTY, -torch.inf)
        if attention.sinks is not None:
            total = torch.logaddexp(total, attention.sinks[:, None])
        weights = _normalised(_weights(block, total), attention)
        factor = _dropout_factor(attention, weights)
        if factor is not None:
            weights = weights * factor
        out[:, :, rows] = _ungroup(_group(weights, problem) @ value, heads)
        lse[:, :, rows] = total
    return Result(out.to(problem.query.dtype), lse)


@in_own_dtype
def backward(
    problem: Problem, result: Result, grad_out: Tensor, grad_lse: Tensor | None, dtype: torch.dtype
) -> Gradients:
    """Compute all gradients, with every intermediate in `dtype`. Memory: that of forward, and the gradients.

    Source: Dao 2023 (FlashAttention-2), alg. 2; with P the weights, dP = dO Vᵀ and δ = Σⱼ P dP, the gradient of a
    logit is P (dP - δ + d lse), and that of a sink is its own weight times (d lse - δ).
    """
    whole = problem.attention
    query, key, value = (t.to(dtype) for t in (problem.query, problem.key, problem.value))
    inputs = {"query": problem.query, "key": problem.key, "value": problem.value}
    inputs |= {name: getattr(whole, name) for name in _learnable(whole)}
    of_rows = {"query", "bias"} if whole.bias is not None and four_axes(whole.bias).shape[2] > 1 else {"query"}
    # Nothing is written in place, because incoming gradients may be inside torch.vmap, where the inputs are not.
    parts: dict[str, list[Tensor]] = {name: [] for name in inputs}
    for rows in _blocks(problem):
        sums = None if grad_lse is None else _rows(grad_lse, rows).to(dtype)
        upstream, lse = _rows(grad_out, rows).to(dtype), _rows(result.lse, rows).to(dtype)
        attention = whole.part(rows, slice(None)).cast(dtype)
        block = _block_gradients(problem, attention, _rows(query, rows), key, value, lse, upstream, sums)
        for name, part in block.items():
            if name in of_rows or not parts[name]:
                parts[name].append(part)
            else:
                parts[name][0] = parts[name][0] + part
    grads = {name: _joined(parts[name], own) for name, own in inputs.items()}
    return Gradients(grads.pop("query"), grads.pop("key"), grads.pop("value"), grads)


def _block_gradients(
    problem: Problem, attention: Attention, query: Tensor, key: Tensor, value: Tensor, lse: Tensor, grad_out: Tensor,
    grad_lse: Tensor | None,
) -> dict[str, Tensor]:  # fmt: skip
    """Return what a block of queries adds to the gradients, by name; those of a bias with the block's rows.

    Args:
        attention: of the block; the tensors are of the block too, except key and value.
    """
    heads = query.shape[1]
    scaled, upstream = _scaled(problem, attention, query, key), _group(grad_out, problem)
    weights = _normalised(_weights(logits(attention, scaled), lse), attention)
    grad_weights = _ungroup(upstream @ value.mT, heads)
    factor, dropped = _dropout_factor(attention, weights), weights
    if factor is not None:
        dropped, grad_weights = weights * factor, grad_weights * factor

    # An empty row has a constant output and lse, so no gradient passes through it.
    shift = (weights * grad_weights).sum(-1)
    if grad_lse is not None:
        shift = shift - grad_lse
    shift = shift.masked_fill(lse == -torch.inf, 0)
    grad_logits = weights * (grad_weights - shift[..., None])
    slope = cap_slope(attention, scaled)
    grad_scaled = grad_logits if slope is None else grad_logits * slope
    grad_products = _group(grad_scaled * attention.multiplier, problem)
    grads = {
        "query": _ungroup(grad_products @ key, heads),
        "key": grad_products.mT @ _group(query, problem),
        "value": _group(dropped, problem).mT @ upstream,
    }
    learned = _learnable(problem.attention)
    if "head_scale" in learned:
        along_query = _ungroup(_group(grad_scaled, problem) @ key, heads) * query
        grads["head_scale"] = along_query.sum((0, 2, 3)) * attention.scale
    if attention.sinks is not None and "sinks" in learned:
        sink = attention.sinks[None, :, None, None].expand(*lse.shape, 1)
        grads["sinks"] = -(_weights(sink, lse)[..., 0] * shift).sum((0, 2))
    if attention.bias is not None and "bias" in learned:
        grads["bias"] = grad_logits.sum_to_size(four_axes(attention.bias).shape)
    if "alibi" in learned:
        length, keys = grad_logits.shape[-2:]
        distance = distances(attention, length, keys, grad_logits.device)
        grads["alibi"] = -(grad_logits * distance).sum((0, 2, 3))
    return grads


def _joined(parts: list[Tensor], own: Tensor) -> Tensor:
    """Return a gradient in the shape and dtype of its tensor, from its blocks of rows, its one sum, or nothing."""
    if not parts:
        return torch.zeros_like(own)
    whole = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
    return whole.reshape(own.shape).to(own.dtype)


def _rows(tensor: Tensor, rows: slice) -> Tensor:
    """Return a block of rows of a tensor (B, H, L, ...). A slice of all rows is an alias, which torch.vmap refuses."""
    return tensor.narrow(2, rows.start, rows.stop - rows.start)


def _learnable(attention: Attention) -> list[str]:
    return [name for name in attention.tensors() if name in LEARNABLE]


def _blocks(problem: Problem) -> Iterator[slice]:
    """Split the queries so that one block's logits are about BLOCK numbers."""
    batch, heads, length, keys = problem.shape
    if batch * heads == 0:
        return
    step = max(1, BLOCK // max(1, batch * heads * keys))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _scaled(problem: Problem, attention: Attention, query: Tensor, key: Tensor) -> Tensor:
    """Return q·k times the multiplier for a block of queries, (B, H, rows, S)."""
    return _ungroup(_group(query, problem) @ key.mT, query.shape[1]) * attention.multiplier


def _weights(block: Tensor, lse: Tensor) -> Tensor:
    """Return exp(logits - lse), and 0 in a row whose lse is -inf."""
    return torch.exp(block - lse.masked_fill(lse == -torch.inf, 0)[..., None])


def _normalised(weights: Tensor, attention: Attention) -> Tensor:
    """Return the weights with rows that sum to 1, unless there are sinks.

    logits - lse loses digits if both are in the hundreds, and all of them at -1e9, a common bias for masking a whole
    row. Dividing by the row's sum restores them.
    """
    if attention.sinks is not None:
        return weights
    return weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def _dropout_factor(attention: Attention, weights: Tensor) -> Tensor | None:
    """Return the factor on the weights: 0 where dropped, 1/(1 - p) where kept; None without dropout."""
    if attention.dropout_p == 0:
        return None
    batch, heads, length, keys = weights.shape
    keep = kept(attention, (batch, heads, length, keys)).to(weights.device)
    return keep.to(weights.dtype) / (1 - attention.dropout_p)


def _group(tensor: Tensor, problem: Problem) -> Tensor:
    """Stack the rows of the query heads that share a key head: (B, H, l, X) -> (B, H_kv, group·l, X)."""
    batch, _, rows, width = tensor.shape
    return tensor.reshape(batch, problem.key.shape[1], problem.group * rows, width)


def _ungroup(tensor: Tensor, heads: int) -> Tensor:
    """Invert `_group`: (B, H_kv, group·l, X) -> (B, H, l, X)."""
    batch, kv_heads, rows, width = tensor.shape
    return tensor.reshape(batch, heads, kv_heads * rows // heads, width)
