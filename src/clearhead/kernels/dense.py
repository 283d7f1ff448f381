"""The weights as a tensor, for callers who ask for the L×S matrix by name: the one thing here that is not O(L)."""

import torch
from torch import Tensor

from clearhead.kernels import native
from clearhead.kernels.native import Native
from clearhead.kernels.problem import Problem, validate

_NATIVE = Native()
_MANY_ROWS = 64  # a thread averages some rows over all heads; fewer rows than these are too little to share out


def with_weights(problem: Problem, *, average: bool = False) -> tuple[Tensor, Tensor] | None:
    """Compute output and weights on the native kernel; None where it cannot, or a gradient is wanted.

    In one pass: the logits of some queries are kept for all keys.

    Args:
        problem: without dropout.
        average: give the mean of the weights over heads. No head's own matrix is stored then.
    Returns:
        out (B, H, L, D_v), and weights (B, H, L, S) or, averaged, (B, L, S), in query's dtype. A row that may attend
        nothing has weights of 0.
    Memory: O(inputs + outputs); where few queries are averaged, also each head's weights of them.

    Example:
        >>> found = with_weights(Problem(*torch.zeros(3, 1, 2, 3, 5), scale=1.0), average=True)
        >>> found is None or found[1].shape == (1, 3, 3)
        True
    """
    if _NATIVE.unavailable() or _NATIVE.refuses(problem) or native.has_only_output(problem) or _learns(problem):
        return None
    validate(problem)
    batch, heads, length, _ = problem.query.shape
    together = average and batch * length >= _MANY_ROWS
    weights = problem.query.new_empty(batch, 1 if together else heads, length, problem.key.shape[2])
    # Told by a stride of 0 that all heads go to one place.
    result = native.forward_with_weights(problem, weights.expand(-1, heads, -1, -1) if together else weights)
    if average:
        weights = weights[:, 0] if together else weights.mean(1)
    return result.out, weights


def _learns(problem: Problem) -> bool:
    tensors = (problem.query, problem.key, problem.value, problem.bias, problem.sinks, problem.alibi)
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
