"""Attention in torch's own steps alone, for transforms that must look into each and know no operator of ours."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead.kernels import Problem, Result, in_own_dtype
from clearhead.kernels.blockwise import BLOCK, NOTHING, rows_of
from clearhead.multihead import dense_weights


@in_own_dtype
def run(problem: Problem, dropout_p: float) -> Result:
    """Compute a problem without writing in place and without asking for a number, so that vmap may map any part of it.

    Args:
        dropout_p: applied by torch, whose vmap says whether each of a batch draws its own.
    Memory: a block of 2²⁰ logits at a time (or one row of B·H·S), each some ten times; all of them, B·H·L·S, where
        a gradient is taken as well.
    """
    length = problem.query.shape[2]
    wide = torch.promote_types(problem.query.dtype, torch.float32)
    key, value = (x.to(wide) for x in (problem.key, problem.value))
    if problem.group > 1:
        key, value = (x.repeat_interleave(problem.group, 1) for x in (key, value))
    batch, heads, keys, _ = key.shape
    step = max(1, BLOCK // max(1, batch * heads * keys))
    blocks = [range(start, min(start + step, length)) for start in range(0, max(1, length), step)]
    parts = [_rows(problem, rows, key, value, dropout_p) for rows in blocks]
    out, lse = (torch.cat(pieces, 2) for pieces in zip(*parts, strict=True))
    return Result(out.to(problem.query.dtype), lse)


def _rows(problem: Problem, rows: range, key: Tensor, value: Tensor, dropout_p: float) -> tuple[Tensor, Tensor]:
    return whole(_part(problem, rows, key.dtype), key, value, dropout_p)


def whole(problem: Problem, key: Tensor, value: Tensor, dropout_p: float) -> tuple[Tensor, Tensor]:
    """Output and lse of all queries at once; both constant in a row that may attend nothing.

    Args:
        problem: its query and bias in the dtype to compute in.
        key, value: in that dtype too, with as many heads as the query.
    """
    logits = dense_weights.logits(problem, key)
    empty = (logits < NOTHING).all(-1, keepdim=True)
    logits = logits.masked_fill(empty, 0)
    if key.shape[2] == 0:
        lse = logits.sum(-1) - torch.inf
    else:
        lse = logits.logsumexp(-1).masked_fill(empty[..., 0], -torch.inf)
    if problem.sinks is not None:
        sinks = problem.sinks.to(lse.dtype)[:, None].expand_as(lse)
        lse = torch.stack((lse, sinks), -1).logsumexp(-1)  # ONNX's older exporter has no logaddexp
    shares = torch.exp(logits - lse.masked_fill(lse == -torch.inf, 0)[..., None]).masked_fill(empty, 0)
    return F.dropout(shares, dropout_p) @ value, lse


def _part(problem: Problem, rows: range, dtype: torch.dtype) -> Problem:
    """The problem of a block of queries, which are counted from 0 again."""
    length = problem.query.shape[2]
    low, high = (None if edge is None else edge + rows.start for edge in problem.band)
    allow, bias = (None if t is None else rows_of(t, rows, length) for t in (problem.allow, problem.bias))
    return dataclasses.replace(
        problem,
        query=problem.query[:, :, rows.start : rows.stop].to(dtype),
        is_causal=False,
        reach=(low, high),
        allow=allow,
        bias=bias if bias is None else bias.to(dtype),
        alibi_offset=problem.alibi_offset + rows.start,
    )
