"""Dense weights, for callers who request them. No other file of this room allocates an L×S tensor."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from clearhead import kernels, spec
from clearhead.kernels import Problem, modes


def dense(problem: Problem, average: bool = False) -> tuple[Tensor, Tensor]:
    """Compute output and dense weights, on the native kernel or in plain torch; both are differentiable.

    Args:
        problem: has no sinks, because the module has none. Dropout is applied to the weights with torch's generator, as
            in torch.
        average: return the mean of the weights over heads.
    Returns:
        out (B, H, L, E) and weights (B, H, L, S), or (B, L, S) averaged, after dropout; 0 in a row that may attend
        nothing.
    Memory: O(B·H·L·S); O(B·L·S) if averaged on the native kernel.
    """
    if has_torch_function_unary(problem.query) and not torch.compiler.is_compiling():
        return handle_torch_function(dense, (problem.query,), problem, average)
    if problem.attention.dropout_p == 0 and not modes.records_operators(problem.query):
        answer = kernels.with_weights(problem, average=average)
        if answer is not None:
            return answer
    key, value = map(problem.per_query_head, (problem.key, problem.value))
    weights = softmax(logits(problem, key), masked=_may_be_empty(problem)).to(value.dtype)
    if problem.attention.dropout_p > 0:
        weights = F.dropout(weights, problem.attention.dropout_p)
    return weights @ value, weights.mean(1) if average else weights


@kernels.untraced
def _may_be_empty(problem: Problem) -> bool:
    """Return whether some row may have no key to attend."""
    attention = problem.attention
    only_causal = attention.is_causal and not attention.tensors()  # each query may attend its own key
    return (attention.is_masked and not only_causal) or problem.key.shape[2] == 0


def logits(problem: Problem, key: Tensor) -> Tensor:
    """Return the logits (B, H, L, S): scaled, capped, biased, and -inf where masked. `key` has H heads."""
    # Scaled before the product, which could overflow in float16. ONNX's older exporter does not support .mT.
    scaled = problem.attention.scale_query(problem.query) @ key.transpose(-2, -1)
    return spec.logits(problem.attention, scaled)


def softmax(x: Tensor, *, masked: bool = True) -> Tensor:
    """Return the softmax over the last axis, with zeros and zero gradient for a row of -inf.

    Args:
        x: (B, H, L, S) logits.
        masked: whether a row may be -inf throughout; False saves two copies.

    >>> softmax(torch.tensor([[0.0, 0.0], [-torch.inf, -torch.inf]])[None, None])[0, 0].tolist()
    [[0.5, 0.5], [0.0, 0.0]]
    """
    if not masked:
        return x.softmax(-1)
    empty = (x == -torch.inf).all(-1, keepdim=True)
    return x.masked_fill(empty, 0).softmax(-1).masked_fill(empty, 0)
