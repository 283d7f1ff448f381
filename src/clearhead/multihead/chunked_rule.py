"""Attention under a rule (one of clearhead.masks) too large to be made a tensor: a block of queries at a time.

Keys that the rule says are EMPTY for a block of queries are never read: where they lie between others, as between a
prefix and a window, the others are gathered. No mask of size L×S is made or kept for backward.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clearhead import kernels
from clearhead.masks import BlockState, Mask
from clearhead.masks.lower import split_alibi

ROWS = 256  # queries a block
COLUMNS = 64  # the fewest keys that are looked at together for whether any query of a block may attend them


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
    """Output and lse of one block of queries, over the keys it may attend."""
    runs, full = _live(mask, rows, problem.key.shape[2])
    device = problem.query.device
    rule = None if full else mask.allow
    allow = None if rule is None else _beside(runs, lambda cols: rule.block(rows, cols, device=device))
    slopes, offset, added = split_alibi(mask.bias)
    if len(runs) > 1 and slopes is not None:  # the keys that are gathered no longer lie as far apart as they are
        slopes, added = None, mask.bias
    bias = None if added is None else _beside(runs, lambda cols: added.bias_block(rows, cols, device=device))
    result = kernels.run(
        kernels.Problem(
            problem.query[:, :, rows.start : rows.stop],
            _gathered(problem.key, runs),
            _gathered(problem.value, runs),
            problem.scale,
            allow=allow,
            bias=bias,
            softcap=problem.softcap,
            sinks=problem.sinks,
            alibi=None if slopes is None else slopes.to(device),
            alibi_offset=offset + rows.start - runs[0].start,
            dropout_p=problem.dropout_p,
            seed=problem.seed + rows.start,
        ),
        kernel,
    )
    return result.out, result.lse


def _live(mask: Mask, rows: range, keys: int) -> tuple[list[range], bool]:
    """The runs of keys that some of these queries may attend, at least one; and whether they may attend all of them."""
    runs: list[range] = []
    full = True
    waiting = [range(keys)]
    while waiting:
        cols = waiting.pop()
        state = mask.state(rows, cols) if cols else BlockState.EMPTY
        if state is BlockState.EMPTY:
            continue
        if state is BlockState.MIXED and len(cols) > COLUMNS:
            middle = cols.start + (len(cols) // 2 + COLUMNS - 1) // COLUMNS * COLUMNS
            waiting += [range(middle, cols.stop), range(cols.start, middle)]  # the first half is looked at next
            continue
        full = full and state is BlockState.FULL
        if runs and runs[-1].stop == cols.start:
            cols = range(runs.pop().start, cols.stop)
        runs.append(cols)
    return runs or [range(0)], full


def _gathered(tensor: Tensor, runs: list[range]) -> Tensor:
    """The rows of key or value, (B, H, S, D), in these runs; a view where there is one run."""
    if len(runs) == 1:
        return tensor[:, :, runs[0].start : runs[0].stop]
    places = torch.cat([torch.arange(run.start, run.stop, device=tensor.device) for run in runs])
    return tensor.index_select(2, places)


def _beside(runs: list[range], block: Callable[[range], Tensor]) -> Tensor:
    """A mask's or bias's blocks of these runs of keys, side by side."""
    parts = [block(run) for run in runs]
    if len(runs) == 1:
        return parts[0]
    return torch.cat([part.expand(*part.shape[:-1], len(run)) for part, run in zip(parts, runs, strict=True)], -1)
