"""The way in: run a problem on a kernel, differentiably. One autograd function serves every kernel."""

from typing import Any

import torch
from torch import Tensor

from clearhead.errors import KernelError
from clearhead.kernels.places import wide
from clearhead.kernels.plan import choose, needs_gradients
from clearhead.kernels.problem import Problem, Result, carries_tangent, has_own_memory, validate
from clearhead.kernels.registry import KERNELS


def run(problem: Problem, kernel: str | None = None) -> Result:
    """Compute output and lse.

    Gradients flow through both, to query, key, value, bias, sinks and ALiBi's slopes; not twice.

    Args:
        problem: what to compute; its shapes and dtypes are checked here.
        kernel: the name of the kernel to use; None leaves the choice to plan.py.
    Raises:
        ShapeError, DtypeError, DeviceError, OptionError: the problem contradicts itself.
        KernelError: the kernel asked for cannot compute it.
    Memory: O(inputs + outputs).

    Example:
        >>> q = torch.zeros(1, 2, 3, 5)
        >>> run(Problem(q, q, q, scale=1.0)).lse[0, 0].tolist() == [torch.tensor(3.0).log().item()] * 3
        True
    """
    validate(problem)
    return _compute(problem, choose(problem, kernel)[0].name)


def run_planned(problem: Problem, kernel: str) -> Result:
    """The same on the kernel that a plan names, which does not choose again."""
    validate(problem)
    return _compute(problem, kernel)


def forward(problem: Problem, kernel: str | None = None) -> Result:
    """Compute output and lse without a graph, with all digits of the lse that the kernel's backward pass needs.

    Args, Raises: as `run`.
    """
    validate(problem)
    return choose(problem, kernel)[0].forward(problem)


def _compute(problem: Problem, kernel: str) -> Result:
    dtype = wide(problem.query.dtype)
    tensors = (problem.query, problem.key, problem.value, problem.bias, problem.sinks, problem.alibi)
    if needs_gradients(*tensors):
        out, lse = _Attention.apply(problem, kernel, *tensors)
        return Result(out, lse.to(dtype))
    result = KERNELS[kernel].forward(problem)
    return Result(result.out, result.lse.to(dtype))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, problem: Problem, name: str, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        result = KERNELS[name].forward(problem)
        ctx.name = name
        # The tensors travel through save_for_backward alone, so that a change in place is noticed.
        ctx.options = (
            problem.scale,
            problem.is_causal,
            problem.softcap,
            problem.dropout_p,
            problem.seed,
            problem.reach,
            problem.alibi_offset,
        )
        ctx.save_for_backward(*tensors, problem.allow, result.out, result.lse)
        ctx.set_materialize_grads(False)
        return result.out, result.lse

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
        if grad_out is None:
            grad_out = torch.zeros_like(ctx.saved_tensors[-2])
        return None, None, *backward(ctx.options, ctx.name, grad_out, grad_lse, *ctx.saved_tensors)


def backward(options: Any, name: str, *tensors: Any) -> tuple[Tensor | None, ...]:
    """The gradients that `_Backward` gives; without its graph where none is wanted, which takes 50 µs less.

    What comes from above may be of another kind than what went in: mapped over many, say (`is_grads_batched`).
    """
    if not has_own_memory(*tensors):
        name = "torch"
    if torch.is_grad_enabled() or carries_tangent(*tensors):
        return _Backward.apply(options, name, *tensors)
    return _Backward.forward(None, options, name, *tensors)


class _Backward(torch.autograd.Function):
    """The backward pass as a function of its own, so that a second derivative is refused and never silently zero."""

    @staticmethod
    def forward(ctx: Any, options: Any, name: str, *tensors: Any) -> tuple[Tensor | None, ...]:
        grad_out, grad_lse, query, key, value, bias, sinks, alibi, allow, out, lse = tensors
        scale, is_causal, softcap, dropout_p, seed, reach, offset = options
        problem = Problem(
            query, key, value, scale, is_causal, allow, bias, softcap, sinks, dropout_p, seed, reach, alibi, offset
        )
        grads = KERNELS[name].backward(problem, Result(out, lse), grad_out, grad_lse)
        return grads.query, grads.key, grads.value, grads.bias, grads.sinks, grads.alibi

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        raise KernelError(
            "attention was differentiated twice, and its kernels give first derivatives only. For a second derivative "
            "compute softmax(query @ key.mT * scale) @ value in plain torch, on a short sequence."
        )
