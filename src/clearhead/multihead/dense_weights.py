"""The dense weights, for callers who ask for them by name. This is the one place here that makes an L×S tensor."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from clearhead import kernels, spec
from clearhead.kernels import Problem, modes


def dense(problem: Problem, average: bool = False) -> tuple[Tensor, Tensor]:
    """Compute output and weights: on the native kernel, or in plain torch, differentiable through both.

    Args:
        problem: without sinks, which the module does not have. Dropout is applied to the weights with torch's
            generator, as torch does.
        average: give the mean of the weights over heads.
    Returns:
        out (B, H, L, E) and weights (B, H, L, S), or (B, L, S) averaged, after dropout; 0 in a row that may attend
        nothing.
    Memory: O(B·H·L·S); O(B·L·S) on the native kernel if averaged.
    """
    if has_torch_function_unary(problem.query) and not torch.compiler.is_compiling():
        return handle_torch_function(dense, (problem.query,), problem, average)
    if problem.attention.dropout_p == 0 and not modes.records_operators(problem.query):
        answer = kernels.with_weights(problem, average=average)
        if answer is not None:
            return answer
    key, value = problem.key, problem.value
    if problem.group > 1:
        key, value = (x.repeat_interleave(problem.group, 1) for x in (key, value))
    weights = softmax(logits(problem, key), masked=_may_be_empty(problem)).to(value.dtype)
    if problem.attention.dropout_p > 0:
        weights = F.dropout(weights, problem.attention.dropout_p)
    return weights @ value, weights.mean(1) if average else weights


@kernels.untraced
def _may_be_empty(problem: Problem) -> bool:
    """Whether some row may have nothing to attend."""
    attention = problem.attention
    only_causal = attention.is_causal and not attention.tensors()  # each query may attend its own key
    return (attention.is_masked and not only_causal) or problem.key.shape[2] == 0


def logits(problem: Problem, key: Tensor) -> Tensor:
    """Scaled, capped, biased and masked (with -inf): (B, H, L, S). `key` has as many heads as the query."""
    # Scaled before the product, which would overflow in float16. ONNX's older exporter has no .mT.
    scaled = problem.attention.scale_query(problem.query) @ key.transpose(-2, -1)
    return spec.logits(problem.attention, scaled)


def softmax(x: Tensor, *, masked: bool = True) -> Tensor:
    """Softmax over the last axis that gives zeros, and zero gradient, for a row of -inf.

    Args:
        x: (B, H, L, S) logits.
        masked: whether a row may be empty; if not, two copies are saved.

    >>> softmax(torch.tensor([[0.0, 0.0], [-torch.inf, -torch.inf]])[None, None])[0, 0].tolist()
    [[0.5, 0.5], [0.0, 0.0]]
    """
    if not masked:
        return x.softmax(-1)
    empty = (x == -torch.inf).all(-1, keepdim=True)
    return x.masked_fill(empty, 0).softmax(-1).masked_fill(empty, 0)
