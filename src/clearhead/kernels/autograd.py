"""The way in: run a problem on a kernel, differentiably. One autograd function serves every kernel."""

from typing import Any

import torch
from torch import Tensor

from clearhead.errors import KernelError
from clearhead.kernels.native.call import wide
from clearhead.kernels.plan import choose
from clearhead.kernels.problem import Problem, Result, carries_tangent, has_own_memory, validate
from clearhead.kernels.registry import KERNELS, with_gradients
from clearhead.spec import TENSORS, Attention


def run(problem: Problem, kernel: str | None = None) -> Result:
    """Compute output and lse.

    Gradients flow through both, to query, key, value and the attention's own tensors; not twice.

    Args:
        problem: what to compute; its shapes and dtypes are checked here.
        kernel: the name of the kernel to use; None leaves the choice to plan.py.
    Raises:
        ShapeError, DtypeError, DeviceError, OptionError: the problem contradicts itself.
        KernelError: the kernel asked for cannot compute it.
    Memory: O(inputs + outputs).

    Example:
        >>> q = torch.zeros(1, 2, 3, 5)
        >>> run(Problem(q, q, q)).lse[0, 0].tolist() == [torch.tensor(3.0).log().item()] * 3
        True
    """
    problem = problem.join_biases()
    validate(problem)
    return _compute(problem, choose(problem, kernel)[0].name)


def run_planned(problem: Problem, kernel: str) -> Result:
    """The same on the kernel that a plan names, which does not choose again."""
    problem = problem.join_biases()
    validate(problem)
    return _compute(problem, kernel)


def forward(problem: Problem, kernel: str | None = None) -> Result:
    """Compute output and lse without a graph, with all digits of the lse that the kernel's backward pass needs.

    Args, Raises: as `run`.
    """
    problem = problem.join_biases()
    validate(problem)
    return choose(problem, kernel)[0].forward(problem)


def _compute(problem: Problem, kernel: str) -> Result:
    dtype = wide(problem.query.dtype)
    if problem.learns():
        numbers, tensors = problem.attention.without_tensors(), problem.attention.tensor_list()
        out, lse = _Attention.apply(numbers, kernel, problem.query, problem.key, problem.value, *tensors)
        return Result(out, lse.to(dtype))
    result = KERNELS[kernel].forward(problem)
    return Result(result.out, result.lse.to(dtype))


class _Attention(torch.autograd.Function):
    """Takes the attention's numbers and its tensors apart: only tensors that are arguments can receive gradients."""

    @staticmethod
    def forward(
        ctx: Any, numbers: Attention, name: str, query: Tensor, key: Tensor, value: Tensor, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        result = KERNELS[name].forward(Problem(query, key, value, numbers.with_tensors(tensors)))
        ctx.numbers, ctx.name = numbers, name
        # Tensors are kept by save_for_backward alone, so that a change in place is noticed.
        ctx.save_for_backward(result.out, result.lse, query, key, value, *tensors)
        ctx.set_materialize_grads(False)
        return result.out, result.lse

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
        out, lse, *inputs = ctx.saved_tensors
        grad_out = torch.zeros_like(out) if grad_out is None else grad_out
        return None, None, *backward(ctx.numbers, ctx.name, grad_out, grad_lse, out, lse, *inputs)


def backward(numbers: Attention, name: str, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradients of query, key, value and of the attention's tensors; without a graph where none is recorded.

    Skipping the graph saves 50 µs.

    Args:
        numbers: the attention without its tensors.
        name: of the kernel that ran forward.
        tensors: grad_out, grad_lse, out, lse, query, key, value, and the attention's, in the order of TENSORS.
    """
    # Incoming gradients may be of another kind than the inputs: those of `is_grads_batched` are mapped.
    if not has_own_memory(*tensors):
        name = "torch"
    if torch.is_grad_enabled() or carries_tangent(*tensors):
        return _Backward.apply(numbers, name, *tensors)
    return _Backward.forward(None, numbers, name, *tensors)  # type: ignore[arg-type]


class _Backward(torch.autograd.Function):
    """The backward pass as a function of its own, so that a second derivative is refused and never silently zero."""

    @staticmethod
    def forward(
        ctx: Any, numbers: Attention, name: str, grad_out: Tensor, grad_lse: Tensor | None, out: Tensor, lse: Tensor,
        query: Tensor, key: Tensor, value: Tensor, *tensors: Tensor | None,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        problem = Problem(query, key, value, numbers.with_tensors(tensors))
        if grad_lse is not None and name == "torch" and with_gradients("triton", problem):
            name = "triton"  # torch's fused operators give none of the lse, and its blocks are slower
        grads = KERNELS[name].backward(problem, Result(out, lse), grad_out, grad_lse)
        return grads.query, grads.key, grads.value, *map(grads.attention.get, TENSORS)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        raise KernelError(
            "attention was differentiated twice, and its kernels give first derivatives only. For a second derivative "
            "compute softmax(query @ key.mT * scale) @ value in plain torch, on a short sequence."
        )
