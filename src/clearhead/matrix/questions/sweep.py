"""Statistics by the kernels' second pass: one sweep in native code, for any mask.

Where the pass does not apply (another device or dtype, gradients), the result is None and the caller computes in torch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clearhead import kernels
from clearhead.kernels import second_pass
from clearhead.matrix import products
from clearhead.matrix.logits import BLOCK, Logits

Progress = Callable[[float], None]
ROWWISE = ("entropy", "maximum", "squares", "mass", "distance", "spread", "best", "best_keys")


@dataclass(frozen=True, slots=True)
class Survey:
    """The result of `AttentionMatrix.survey`; each field equals the result of the method of the same name.

    Attributes:
        entropy, maximum, effective_keys, mean_distance, distance_spread: (B, H, L).
        received: (B, H, S).
        topk: (values, indices), each (B, H, L, k).
        pooled: (B, H, rows, cols), by mean.
    """

    entropy: Tensor
    maximum: Tensor
    effective_keys: Tensor
    mean_distance: Tensor
    distance_spread: Tensor
    received: Tensor
    topk: tuple[Tensor, Tensor]
    pooled: Tensor


def ask(
    logits: Logits, lse: Callable[[], Tensor], wanted: kernels.Wanted, progress: Progress | None = None
) -> kernels.Statistics | None:
    """Return the wanted statistics of a matrix in float32; None where the second pass does not apply.

    Args:
        logits: the matrix, in its own dtype.
        lse: returns the log-sum-exp of its rows, (B, H, L); called only if the pass applies.
    """
    if logits.has_dense_bias:
        return None
    problem = products.problem(logits.change(rule=None), logits.key)
    if second_pass.refuses(problem, wanted) is not None:
        return None
    known = lse()
    if known.requires_grad and torch.is_grad_enabled():
        return None
    if logits.attention.rule is None:
        return kernels.statistics(problem, known, wanted, progress)
    return _by_strips(logits, known, wanted, progress)


def _by_strips(logits: Logits, lse: Tensor, wanted: kernels.Wanted, progress: Progress | None) -> kernels.Statistics:
    """Return the statistics of a matrix under a rule, a strip of rows at a time, the rule as a tensor per strip."""
    rows, keys = logits.shape[2:]
    step = logits.rows_at_once(BLOCK)
    parts, maps = [], None if wanted.cells is None else _no_cells(logits, wanted.cells)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        strip = logits.part(slice(start, stop), slice(0, keys))
        here, own = _cells_of(wanted.cells, start, stop)
        of_strip = replace(wanted, offset=wanted.offset + start, cells=own)
        answer = kernels.statistics(products.problem(strip, strip.key), lse[:, :, start:stop], of_strip)
        if maps is not None and own is not None:
            maps[:, :, here] = (
                torch.maximum(maps[:, :, here], answer.map) if own.by_maximum else maps[:, :, here] + answer.map
            )
        parts.append(answer)
        if progress is not None:
            progress(stop / rows)
    if not parts:
        return kernels.statistics(products.problem(logits, logits.key), lse, wanted)
    joined = {name: _join([getattr(part, name) for part in parts]) for name in ROWWISE}
    received = parts[0].received
    for part in parts[1:]:
        received = received + part.received
    return kernels.Statistics(**joined, received=received, map=second_pass.NOTHING if maps is None else maps)


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if parts[0] is second_pass.NOTHING else torch.cat(parts, dim=2)


def _no_cells(logits: Logits, where: kernels.Cells) -> Tensor:
    return torch.zeros(*logits.shape[:2], len(where.rows), len(where.keys), device=logits.query.device)


def _cells_of(where: kernels.Cells | None, start: int, stop: int) -> tuple[Tensor, kernels.Cells | None]:
    """Return the indices of a map's cells that intersect some rows, and the cells relative to the first of the rows."""
    if where is None:
        return second_pass.NOTHING, None
    clipped = where.rows.clamp(start, stop) - start
    here = (clipped[:, 1] > clipped[:, 0]).nonzero()[:, 0]
    return here, replace(where, rows=clipped[here].contiguous())


def in_forward_pass(logits: Logits, wanted: kernels.Wanted) -> tuple[Tensor, kernels.Statistics] | None:
    """Return the lse and the wanted statistics from one forward pass; None where they need a second pass."""
    own = logits.attention
    if own.key_bias is not None or own.rule is not None or not second_pass.in_forward_pass(wanted):
        return None
    problem = products.problem(logits, logits.key[..., :0]).change(sinks=own.sinks)
    if second_pass.refuses(problem, wanted) is not None:
        return None
    result, answer = kernels.run_with(problem, wanted)
    return result.lse, answer


def cells(edges: list[list[tuple[int, int]]], spans: tuple[slice, slice], *, by_maximum: bool) -> kernels.Cells:
    """Return the cells of a map over the rectangle `spans`, from their edges within it."""
    rows, keys = (torch.tensor(part, device="cpu") + span.start for part, span in zip(edges, spans, strict=True))
    return kernels.Cells(rows, keys, by_maximum)


def means(sums: Tensor, where: kernels.Cells) -> Tensor:
    """Return the mean of each cell, from its sum."""
    down, across = (edges[:, 1] - edges[:, 0] for edges in (where.rows, where.keys))
    return sums / (down[:, None] * across)


def normaliser(logits: Logits, progress: Progress | None) -> Tensor:
    """Return the log-sum-exp of each row, sinks included, (B, H, L); a few rows at a time, to report progress."""
    batch, heads, rows, keys = logits.shape
    step = max(second_pass.CHUNK // max(batch * heads * keys * logits.query.shape[-1], 1) // 1024, 1) * 1024
    if progress is None or rows <= step:
        return products.normaliser(logits)
    parts = []
    for start in range(0, rows, step):
        parts.append(products.normaliser(logits.part(slice(start, start + step), slice(0, keys))))
        progress(min(start + step, rows) / rows)
    return torch.cat(parts, dim=2)
