"""Attention under a rule (one of clearhead.masks) too large to be a tensor, one block of queries at a time.

Keys that are EMPTY for a block of queries are never read. If they are between other keys, as between a prefix and a
window, the other keys are gathered. No L×S mask is made, or kept for backward.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from clearhead import kernels
from clearhead.masks import BlockState, Mask
from clearhead.masks.lower import split_alibi
from clearhead.spec import Attention

ROWS = 256  # queries per block
COLUMNS = 64  # the smallest block of keys whose state is checked


def run(problem: kernels.Problem, kernel: str | None = None) -> kernels.Result:
    """Compute a problem under a rule, one block of queries at a time.

    Args:
        problem: its rule is a Mask, with a bias or without.
    Returns:
        out and lse, differentiable with respect to query, key, value, sinks and the parameters of the mask's biases.
    Memory: O(inputs + outputs + B·H·ROWS·S); backward recomputes each block instead of keeping it.
    """
    mask, rest = cast(Mask, problem.attention.rule), problem.change(rule=None)
    compute = _recomputed if torch.is_grad_enabled() else _block
    parts = [compute(rest, mask, rows, kernel) for rows in _rows(problem)]
    return kernels.Result(torch.cat([out for out, _ in parts], 2), torch.cat([lse for _, lse in parts], 2))


def _rows(problem: kernels.Problem) -> list[range]:
    length = problem.query.shape[2]
    return [range(start, min(start + ROWS, length)) for start in range(0, length, ROWS)]


def _recomputed(problem: kernels.Problem, mask: Mask, rows: range, kernel: str | None) -> Any:
    from torch.utils.checkpoint import checkpoint

    return checkpoint(_block, problem, mask, rows, kernel, use_reentrant=False, preserve_rng_state=False)


def _block(problem: kernels.Problem, mask: Mask, rows: range, kernel: str | None) -> tuple[Tensor, Tensor]:
    """Compute output and lse of one block of queries over the keys it may attend."""
    runs, full = _live(mask, rows, problem.key.shape[2])
    if problem.attention.dropout_p > 0:  # gathering would change key positions, and so the dropout pattern
        runs, full = [range(runs[0].start, runs[-1].stop)], full and len(runs) == 1
    device = problem.query.device
    rule = None if full else mask.allow
    allow = None if rule is None else _concatenate(runs, lambda cols: rule.block(rows, cols, device=device))
    slopes, offset, added = split_alibi(mask.bias)
    if len(runs) > 1 and slopes is not None:  # distances between gathered keys differ from those of their positions
        slopes, added = None, mask.bias
    bias = None if added is None else _concatenate(runs, lambda cols: added.bias_block(rows, cols, device=device))
    slopes = None if slopes is None else slopes.to(device)
    own = Attention.of(allow=allow, bias=bias, alibi=slopes, first_query=offset + rows.start, first_key=runs[0].start)
    queries = slice(rows.start, rows.stop)
    block = kernels.Problem(
        problem.query[:, :, queries],
        _gather(problem.key, runs),
        _gather(problem.value, runs),
        problem.attention.part(queries, slice(runs[0].start, None)).under(own),
    )
    result = kernels.run(block, kernel)
    return result.out, result.lse


def _live(mask: Mask, rows: range, keys: int) -> tuple[list[range], bool]:
    """Return the runs of keys that some of these queries may attend, and whether every pair in them is allowed."""
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
            waiting += [range(middle, cols.stop), range(cols.start, middle)]  # the first half is checked next
            continue
        full = full and state is BlockState.FULL
        if runs and runs[-1].stop == cols.start:
            cols = range(runs.pop().start, cols.stop)
        runs.append(cols)
    return runs or [range(0)], full


def _gather(tensor: Tensor, runs: list[range]) -> Tensor:
    """Return the rows of key or value, (B, H, S, D), in these runs; a view if there is one run."""
    if len(runs) == 1:
        return tensor[:, :, runs[0].start : runs[0].stop]
    places = torch.cat([torch.arange(run.start, run.stop, device=tensor.device) for run in runs])
    return tensor.index_select(2, places)


def _concatenate(runs: list[range], block: Callable[[range], Tensor]) -> Tensor:
    """Return the blocks of a mask or bias for these runs of keys, concatenated."""
    parts = [block(run) for run in runs]
    if len(runs) == 1:
        return parts[0]
    return torch.cat([part.expand(*part.shape[:-1], len(run)) for part, run in zip(parts, runs, strict=True)], -1)
