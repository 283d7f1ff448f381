"""The second pass over an attention whose lse is known: statistics of rows, columns and cells of its weights.

Nothing of size L×S is allocated. A kernel with Capability.STATISTICS computes it. clearhead.matrix calls `refuses`
first, and computes in torch what no kernel supports.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clearhead.errors import KernelError
from clearhead.kernels.capability import WithStatistics
from clearhead.kernels.problem import Problem, Result
from clearhead.kernels.registry import with_statistics

Progress = Callable[[float], None]

CHUNK = 2**33  # multiply-adds between two reports of progress: a few tenths of a second
NOTHING = torch.empty(0, device="cpu")  # a statistic that is not wanted
MOST_BEST = 64  # the largest k of top-k: beyond it, keeping a row's list costs more than the product


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a map.

    Attributes:
        rows, keys: (n, 2), int64, contiguous: the first query or key of each cell and the end of the cell, in order.
        by_maximum: compute the largest weight of each cell instead of the sum.
    """

    rows: Tensor
    keys: Tensor
    by_maximum: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which statistics to compute. Distances are |i + offset - j|, in positions."""

    entropy: bool = False
    maximum: bool = False
    squares: bool = False
    mass: bool = False
    distance: bool = False
    spread: bool = False
    offset: int = 0
    received: bool = False
    topk: int = 0
    cells: Cells | None = None


@dataclass(frozen=True, slots=True)
class Statistics:
    """The computed statistics, float32; an empty tensor for each that was not wanted.

    Attributes:
        entropy: (B, H, L), nats: -Σⱼ a·log a.
        maximum, squares, mass: (B, H, L): the largest weight, Σⱼ a², Σⱼ a.
        distance: (B, H, L): Σⱼ a·distance.
        spread: (B, H, L): the standard deviation of the distance under the row's weights.
        received: (B, H, S): Σᵢ a.
        best, best_keys: (B, H, L, k): the largest weights of a row, largest first, and their keys (int64); of equal
            weights the lower key is first.
        map: (B, H, rows, keys): one number per cell.
    """

    entropy: Tensor = NOTHING
    maximum: Tensor = NOTHING
    squares: Tensor = NOTHING
    mass: Tensor = NOTHING
    distance: Tensor = NOTHING
    spread: Tensor = NOTHING
    received: Tensor = NOTHING
    best: Tensor = NOTHING
    best_keys: Tensor = NOTHING
    map: Tensor = NOTHING


def refuses(problem: Problem, wanted: Wanted) -> str | None:
    """Return why no kernel can compute these statistics, in one line; None if one can."""
    if wanted.topk > MOST_BEST:
        return f"it keeps at most the {MOST_BEST} largest weights of a row"
    if replace(problem, value=problem.key).learns():
        return "gradients are needed"
    kernel = with_statistics(problem)
    return kernel if isinstance(kernel, str) else None


def _kernel(problem: Problem, name: str | None) -> WithStatistics:
    kernel = with_statistics(problem, name)
    if isinstance(kernel, str):
        raise KernelError(f"no kernel computes these statistics: {kernel}. Call `second_pass.refuses` first.")
    return kernel


def statistics(
    problem: Problem, lse: Tensor, wanted: Wanted, progress: Progress | None = None, *, kernel: str | None = None
) -> Statistics:
    """Compute the wanted statistics, given the lse.

    Args:
        problem: validated, and not refused; its value and dropout are ignored.
        lse: (B, H, L), natural log: the log-sum-exp of each row, sinks included.
        progress: called with the share done, 0..1, several times a second.
        kernel: the name of the kernel to use; None = the first that can compute them.
    Raises:
        KernelError: the given kernel, or every kernel, cannot compute them; the message says why.

    Memory: O(outputs); with column sums or a map, up to 32 copies of them.

    Example:
        >>> q = torch.zeros(1, 1, 2, 3)
        >>> problem = Problem(q, q, q, is_causal=True)
        >>> result = statistics(problem, torch.tensor([[[1.0, 2.0]]]).log(), Wanted(received=True, maximum=True))
        >>> result.received, result.maximum
        (tensor([[[1.5000, 0.5000]]]), tensor([[[1.0000, 0.5000]]]))
    """
    length, keys = problem.query.shape[2], problem.key.shape[2]
    output = allocate(problem, wanted)
    lse = lse.detach().float().resolve_neg()
    rows, columns = _area(wanted, length, keys)
    chosen = _kernel(problem, kernel)
    for part in _runs(problem, rows, columns):
        chosen.statistics(problem, lse, part, columns, wanted, output)
        if progress is not None:
            progress((part.stop - rows.start) / (rows.stop - rows.start))
    return output


def run_with(problem: Problem, wanted: Wanted, *, kernel: str | None = None) -> tuple[Result, Statistics]:
    """Compute a forward pass and, in the same pass, entropy, maximum, squares, mass and top-k of its rows.

    Not differentiable.

    Args:
        problem: validated, and not refused by `refuses`; the statistics ignore dropout.
        wanted: only these five; an offset is ignored.
        kernel, Raises: as in `statistics`.

    Cost: a few percent of the pass; with the 8 largest weights of each row 10 to 20 %.

    Example:
        >>> q = torch.zeros(1, 1, 2, 3)
        >>> result, rows = run_with(Problem(q, q, q, is_causal=True), Wanted(entropy=True, topk=1))
        >>> result.lse.exp(), rows.entropy.exp(), rows.best[..., 0]
        (tensor([[[1., 2.]]]), tensor([[[1., 2.]]]), tensor([[[1.0000, 0.5000]]]))
    """
    output = allocate(problem, wanted)
    return _kernel(problem, kernel).forward_with(problem, wanted, output), output


def in_forward_pass(wanted: Wanted) -> bool:
    """Return whether `run_with` computes everything that is wanted, so that no second pass is needed."""
    own = Wanted(wanted.entropy, wanted.maximum, wanted.squares, wanted.mass, offset=wanted.offset, topk=wanted.topk)
    return wanted == own


def allocate(problem: Problem, wanted: Wanted) -> Statistics:
    """Return zeros for what is wanted, because no work item writes the statistics of an empty matrix."""
    batch, heads, length, _ = problem.query.shape
    keys = problem.key.shape[2]

    def zeros(needed: bool, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return problem.query.new_zeros(batch, heads, *shape, dtype=dtype) if needed else NOTHING

    cells = wanted.cells
    return Statistics(
        entropy=zeros(wanted.entropy, length),
        maximum=zeros(wanted.maximum, length),
        squares=zeros(wanted.squares, length),
        mass=zeros(wanted.mass, length),
        distance=zeros(wanted.distance, length),
        spread=zeros(wanted.spread, length),
        received=zeros(wanted.received, keys),
        best=zeros(wanted.topk > 0, length, wanted.topk),
        best_keys=zeros(wanted.topk > 0, length, wanted.topk, dtype=torch.int64),
        map=NOTHING if cells is None else zeros(True, len(cells.rows), len(cells.keys)),
    )


def _area(wanted: Wanted, length: int, keys: int) -> tuple[range, range]:
    """Return the queries and keys to process: all, unless only a map of a part is wanted."""
    cells = wanted.cells
    if cells is None or wanted != Wanted(cells=cells, offset=wanted.offset):
        return range(length), range(keys)
    ends = [(int(edges[0, 0]), int(edges[-1, 1])) if len(edges) else (0, 0) for edges in (cells.rows, cells.keys)]
    return range(*ends[0]), range(*ends[1])


def _runs(problem: Problem, rows: range, columns: range) -> Iterator[range]:
    """Split the queries into runs of about CHUNK multiply-adds, in whole blocks of 128 per head."""
    batch, heads, _, width = problem.query.shape
    work_per_row = max(batch * heads * len(columns) * max(width, 1), 1)
    step = max(CHUNK // work_per_row // 1024, 1) * 1024
    for start in range(rows.start, rows.stop, step):
        yield range(start, min(start + step, rows.stop))
