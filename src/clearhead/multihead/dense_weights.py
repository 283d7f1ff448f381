"""The dense weights, for callers who ask for them by name. This is the one place here that makes an L×S tensor."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from clearhead import kernels
from clearhead.kernels import Problem, modes


def dense(problem: Problem, dropout_p: float = 0.0, average: bool = False) -> tuple[Tensor, Tensor]:
    """Compute output and weights: on the native kernel, or in plain torch, differentiable through both.

    Args:
        problem: query (B, H, L, D) and the rest; no sinks, which the module does not have.
        dropout_p: applied to the weights with torch's generator, as torch does.
        average: give the mean of the weights over heads.
    Returns:
        out (B, H, L, E) and weights (B, H, L, S), or (B, L, S) averaged, after dropout; 0 in a row that may attend
        nothing.
    Memory: O(B·H·L·S); O(B·L·S) on the native kernel if averaged.
    """
    if has_torch_function_unary(problem.query) and not torch.compiler.is_compiling():
        return handle_torch_function(
            dense, (problem.query,), problem, dropout_p, average
        )  # a mode is watching: let it see
    if dropout_p == 0 and not modes.records_operators(problem.query):
        both = kernels.with_weights(problem, average=average)
        if both is not None:
            return both
    key, value = problem.key, problem.value
    if problem.group > 1:
        key, value = (x.repeat_interleave(problem.group, 1) for x in (key, value))
    weights = softmax(logits(problem, key), masked=_may_be_empty(problem)).to(value.dtype)
    if dropout_p > 0:
        weights = F.dropout(weights, dropout_p)
    return weights @ value, weights.mean(1) if average else weights


@kernels.untraced
def _may_be_empty(problem: Problem) -> bool:
    """Whether some row may have nothing to attend."""
    masked = problem.allow is not None or problem.bias is not None or problem.reach != (None, None)
    return masked or problem.key.shape[2] == 0


def logits(problem: Problem, key: Tensor) -> Tensor:
    """Scaled, capped, biased and masked (with -inf): (B, H, L, S). `key` has as many heads as the query."""
    x = (problem.query * problem.scale) @ key.transpose(-2, -1)  # ONNX's older exporter has no .mT
    if problem.softcap is not None:
        x = torch.tanh(x / problem.softcap) * problem.softcap
    if problem.bias is not None:
        x = x + problem.bias
    length, keys = x.shape[-2:]
    if problem.alibi is not None:
        places = torch.arange(length, device=x.device)[:, None] + problem.alibi_offset
        x = x - problem.alibi[:, None, None] * (places - torch.arange(keys, device=x.device)).abs()
    if problem.allow is not None:
        x = x.masked_fill(~problem.allow, -torch.inf)
    low, high = problem.band
    if low is not None or high is not None:
        inside = torch.ones(x.shape[-2:], dtype=torch.bool, device=x.device)
        inside = inside if low is None else inside.triu(low)
        x = x.masked_fill(~(inside if high is None else inside.tril(high)), -torch.inf)
    return x


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
