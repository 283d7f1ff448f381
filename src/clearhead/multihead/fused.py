"""Run a problem on the path that its plan chose. Every attention of this room is computed here."""

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from clearhead import kernels
from clearhead.kernels.plan import CHUNKED_RULE, CUSTOM_OPERATOR, DECOMPOSED, TORCH_STEPS, plan
from clearhead.masks import Mask
from clearhead.masks.lower import split_alibi
from clearhead.matrix import AttentionMatrix
from clearhead.multihead import chunked_rule
from clearhead.multihead.operators import custom_op, decomposition, double_backward
from clearhead.multihead.operators import custom_op_vmap as _vmap  # noqa: F401 (registers the rules of torch.vmap)
from clearhead.spec import Attention


def fused(problem: kernels.Problem, kernel: str | None = None) -> kernels.Result:
    """Compute a problem on the path its plan chose; return output and lse.

    The dropout pattern's seed comes from torch's generator, so torch.manual_seed governs it.
    """
    if problem.attention.dropout_p == 1:  # every weight is dropped: zeros, with a graph
        result = fused(problem.change(dropout_p=0.0), kernel)
        return kernels.Result(result.out * 0, result.lse)
    if has_torch_function_unary(problem.query) and not torch.compiler.is_compiling():
        # A TorchFunctionMode is active: it must see this call.
        return handle_torch_function(fused, (problem.query,), problem, kernel)
    planned = plan(problem, kernel)
    if planned.path == TORCH_STEPS:
        return double_backward.run(problem)
    if planned.path == DECOMPOSED:
        return decomposition.run(problem)
    if planned.path == CUSTOM_OPERATOR:
        return custom_op.run(problem, kernel)
    if problem.attention.dropout_p > 0:
        problem = problem.change(seed=int(torch.randint(2**62, (), device="cpu")))
    if planned.path == CHUNKED_RULE:
        return chunked_rule.run(problem, planned.kernel)
    return kernels.run_planned(problem, str(planned.kernel))


def matrix_of(problem: kernels.Problem, lse: Tensor) -> AttentionMatrix:
    """Return the weights of a problem as an AttentionMatrix, given the lse of its forward pass."""
    attention = problem.attention.change(dropout_p=0.0, seed=0)
    mask = attention.rule
    if isinstance(mask, Mask):
        slopes, offset, _ = split_alibi(mask.bias)
        own = Attention.of(reach=attention.reach, alibi=slopes, first_query=offset, rule=mask.allow)
        attention = attention.change(rule=None).under(own)
    return AttentionMatrix.of(problem.query, problem.key, attention, value=problem.value, lse=lse)
