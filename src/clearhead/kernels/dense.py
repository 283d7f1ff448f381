"""The weights as a tensor, for callers who ask for the L×S matrix by name: the one thing here that is not O(L)."""

import torch
from torch import Tensor

from clearhead.kernels import native
from clearhead.kernels.autograd import run
from clearhead.kernels.native import Native
from clearhead.kernels.problem import Problem

_NATIVE = Native()


def with_weights(problem: Problem, *, average: bool = False) -> tuple[Tensor, Tensor] | None:
    """Compute output and weights on the native kernel; None where it cannot, or a gradient is wanted.

    A second pass makes the weights, exp(logits - lse). It takes half as long as the first.

    Args:
        problem: without dropout.
        average: give the mean of the weights over heads. No head's own matrix is stored then.
    Returns:
        out (B, H, L, D_v), and weights (B, H, L, S) or, averaged, (B, L, S), in query's dtype. A row that may attend
        nothing has weights of 0.
    Memory: O(inputs + outputs).

    Example:
        >>> found = with_weights(Problem(*torch.zeros(3, 1, 2, 3, 5), scale=1.0), average=True)
        >>> found is None or found[1].shape == (1, 3, 3)
        True
    """
    if _NATIVE.unavailable() or _NATIVE.refuses(problem) or _learns(problem):
        return None
    result = run(problem)
    batch, heads, length, _ = problem.query.shape
    weights = problem.query.new_empty(batch, 1 if average else heads, length, problem.key.shape[2])
    # Told by a stride of 0 that all heads go to one place.
    native.weights(problem, result.lse, weights.expand(-1, heads, -1, -1) if average else weights)
    return result.out, weights[:, 0] if average else weights


def _learns(problem: Problem) -> bool:
    tensors = (problem.query, problem.key, problem.value, problem.bias, problem.sinks, problem.alibi)
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
