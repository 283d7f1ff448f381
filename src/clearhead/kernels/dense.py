"""Dense weights, for callers who request the L×S tensor. Nothing else in this room takes more than O(L) memory."""

from torch import Tensor

from clearhead.kernels.capability import WithWeights
from clearhead.kernels.problem import Problem, Result, validate
from clearhead.kernels.registry import with_weights as kernel_with_weights
from clearhead.kernels.second_pass import Statistics, Wanted, allocate

_MANY_ROWS = 64  # a thread averages some rows over all heads; fewer rows than this are too few to distribute


def with_weights(problem: Problem, *, average: bool = False) -> tuple[Tensor, Tensor] | None:
    """Compute output and weights in one pass of a kernel; None if no kernel can, or a gradient is needed.

    Args:
        problem: without dropout.
        average: return the mean of the weights over heads, without storing each head's weights.
    Returns:
        out (B, H, L, D_v), and weights (B, H, L, S) or, averaged, (B, L, S), in query's dtype. A row that may attend
        nothing has weights of 0.
    Memory: O(inputs + outputs); if few queries are averaged, also each head's weights.

    Example:
        >>> import torch
        >>> result = with_weights(Problem(*torch.zeros(3, 1, 2, 3, 5)), average=True)
        >>> result is None or result[1].shape == (1, 3, 3)
        True
    """
    kernel = _kernel(problem)
    if kernel is None:
        return None
    batch, heads, length, _ = problem.query.shape
    together = average and batch * length >= _MANY_ROWS
    weights = problem.query.new_empty(batch, 1 if together else heads, length, problem.key.shape[2])
    # A head stride of 0 tells the kernel to average over heads.
    result = kernel.forward_with_weights(problem, weights.expand(-1, heads, -1, -1) if together else weights)
    if average:
        weights = weights[:, 0] if together else weights.mean(1)
    return result.out, weights


def run_with_weights(problem: Problem, wanted: Wanted) -> tuple[Result, Statistics, Tensor] | None:
    """Compute a forward pass and, in the same pass, statistics of its rows and the weights; None if no kernel can.

    Args:
        problem: without dropout.
        wanted: as in `second_pass.run_with`.
    Returns:
        output and lse; the statistics; and the weights (B, H, L, S), in query's dtype.
    Memory: O(inputs + outputs).

    Example:
        >>> import torch
        >>> result = run_with_weights(Problem(*torch.zeros(3, 1, 2, 3, 5)), Wanted(maximum=True))
        >>> result is None or bool((result[2].amax(-1) == result[1].maximum).all())
        True
    """
    kernel = _kernel(problem)
    if kernel is None:
        return None
    batch, heads, length, _ = problem.query.shape
    weights = problem.query.new_empty(batch, heads, length, problem.key.shape[2])
    statistics = allocate(problem, wanted)
    return kernel.forward_with_weights(problem, weights, wanted, statistics), statistics, weights


def _kernel(problem: Problem) -> WithWeights | None:
    """Validate a problem and return a kernel that computes its weights; None if none can, or a gradient is needed."""
    kernel = kernel_with_weights(problem)
    if isinstance(kernel, str) or problem.learns():
        return None
    validate(problem)
    return kernel
