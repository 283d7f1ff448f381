"""Attention in torch's own operators, for transforms that need a formula for each step and have none for ours."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead.kernels import Problem, Result, in_own_dtype
from clearhead.kernels.portable.blockwise import BLOCK, EMPTY
from clearhead.multihead import dense_weights


@in_own_dtype
def run(problem: Problem) -> Result:
    """Compute a problem without in-place writes or data-dependent control flow, so that vmap can map any part of it.

    Dropout is torch's, whose vmap decides whether each batch entry draws its own pattern.

    Memory: about ten copies of a block of 2²⁰ logits (or of one row, B·H·S); of all logits, B·H·L·S, if a gradient is
        computed.
    """
    length = problem.query.shape[2]
    wide = torch.promote_types(problem.query.dtype, torch.float32)
    key, value = (problem.per_query_head(x.to(wide)) for x in (problem.key, problem.value))
    batch, heads, keys, _ = key.shape
    step = max(1, BLOCK // max(1, batch * heads * keys))
    blocks = [range(start, min(start + step, length)) for start in range(0, max(1, length), step)]
    parts = [whole(_part(problem, rows, wide), key, value) for rows in blocks]
    out, lse = (torch.cat(pieces, 2) for pieces in zip(*parts, strict=True))
    return Result(out.to(problem.query.dtype), lse)


def whole(problem: Problem, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Compute output and lse of all queries at once; in an empty row both are constant.

    Args:
        problem: query and bias have the dtype to compute in.
        key, value: in the same dtype, with as many heads as the query.
    """
    logits = dense_weights.logits(problem, key)
    empty = (logits < EMPTY).all(-1, keepdim=True)
    logits = logits.masked_fill(empty, 0)
    if key.shape[2] == 0:
        lse = logits.sum(-1) - torch.inf
    else:
        lse = logits.logsumexp(-1).masked_fill(empty[..., 0], -torch.inf)
    if problem.attention.sinks is not None:
        sinks = problem.attention.sinks.to(lse.dtype)[:, None].expand_as(lse)
        lse = torch.stack((lse, sinks), -1).logsumexp(-1)  # ONNX's older exporter does not support logaddexp
    weights = torch.exp(logits - lse.masked_fill(lse == -torch.inf, 0)[..., None]).masked_fill(empty, 0)
    return F.dropout(weights, problem.attention.dropout_p) @ value, lse


def _part(problem: Problem, rows: range, dtype: torch.dtype) -> Problem:
    """Return the problem of a block of queries, in the dtype to compute in."""
    part = slice(rows.start, rows.stop)
    attention = problem.attention.part(part, slice(None)).cast(dtype)
    return dataclasses.replace(problem, query=problem.query[:, :, part].to(dtype), attention=attention)
