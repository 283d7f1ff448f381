"""Attention under a rule (one of clearhead.masks) too large to be made a tensor: a block of queries at a time.

Blocks of keys that the rule says are EMPTY are never read, and no mask of size L×S is made or kept for backward.
"""

from typing import Any

import torch
from torch import Tensor

from clearhead import kernels
from clearhead.masks import BlockState, Mask
from clearhead.masks.lower import split_alibi

ROWS = 256  # queries a block
COLUMNS = 256  # keys a step when looking for what a block of queries may attend


def run(problem: kernels.Problem, mask: Mask, kernel: str | None = None) -> kernels.Result:
    """Compute a problem under a mask.

    Args:
        problem: without `allow`, `bias` or `is_causal`: the mask says it all.
        mask: where queries may attend, and what is added to the logits.
    Returns:
        out and lse, differentiable to query, key, value, sinks and whatever the mask's biases hold.
    Memory: O(inputs + outputs + B·H·ROWS·S); backward computes each block once more instead of keeping it.
    """
    if not torch.is_grad_enabled():
        parts = [_block(problem, mask, rows, kernel) for rows in _rows(problem)]
    else:
        parts = [_recomputed(problem, mask, rows, kernel) for rows in _rows(problem)]
    return kernels.Result(torch.cat([out for out, _ in parts], 2), torch.cat([lse for _, lse in parts], 2))


def _rows(problem: kernels.Problem) -> list[range]:
    length = problem.query.shape[2]
    return [range(start, min(start + ROWS, length)) for start in range(0, length, ROWS)]


def _recomputed(problem: kernels.Problem, mask: Mask, rows: range, kernel: str | None) -> Any:
    from torch.utils.checkpoint import checkpoint

    return checkpoint(_block, problem, mask, rows, kernel, use_reentrant=False, preserve_rng_state=False)


def _block(problem: kernels.Problem, mask: Mask, rows: range, kernel: str | None) -> tuple[Tensor, Tensor]:
    """Output and lse of one block of queries, over the keys between the first and the last it may attend."""
    keys = problem.key.shape[2]
    states = [
        (cols, mask.state(rows, cols)) for cols in (range(c, min(c + COLUMNS, keys)) for c in range(0, keys, COLUMNS))
    ]
    live = [cols for cols, state in states if state is not BlockState.EMPTY]
    cols = range(live[0].start, live[-1].stop) if live else range(0)
    full = all(state is BlockState.FULL for c, state in states if cols.start <= c.start < cols.stop)
    device = problem.query.device
    allow = None if full or mask.allow is None else mask.allow.block(rows, cols, device=device)
    slopes, offset, added = split_alibi(mask.bias)
    bias = None if added is None else added.bias_block(rows, cols, device=device)
    result = kernels.run(
        kernels.Problem(
            problem.query[:, :, rows.start : rows.stop],
            problem.key[:, :, cols.start : cols.stop],
            problem.value[:, :, cols.start : cols.stop],
            problem.scale,
            allow=allow,
            bias=bias,
            softcap=problem.softcap,
            sinks=problem.sinks,
            alibi=None if slopes is None else slopes.to(device),
            alibi_offset=offset + rows.start - cols.start,
            dropout_p=problem.dropout_p,
            seed=problem.seed + rows.start,
        ),
        kernel,
    )
    return result.out, result.lse
