"""Run a problem on a kernel, differentiably. One autograd function serves every kernel."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

import torch
from torch import Tensor

from clearhead.errors import KernelError
from clearhead.kernels.plan import choose
from clearhead.kernels.precision import wide
from clearhead.kernels.problem import Problem, Result, carries_tangent, has_own_memory, validate
from clearhead.kernels.registry import KERNELS, with_gradients
from clearhead.spec import TENSORS, Attention


def run(problem: Problem, kernel: str | None = None) -> Result:
    """Compute output and lse of a problem.

    First derivatives flow through both, to query, key, value and the attention's own tensors.

    Args:
        problem: the problem; its shapes and dtypes are validated here.
        kernel: the name of the kernel to use; None = chosen by plan.py.
    Raises:
        ShapeError, DtypeError, DeviceError, OptionError: the problem's tensors do not fit each other.
        KernelError: the given kernel cannot compute it.
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
    """Compute output and lse on the kernel that a plan chose."""
    problem = problem.join_biases()
    validate(problem)
    return _compute(problem, kernel)


def forward(problem: Problem, kernel: str | None = None) -> Result:
    """Compute output and lse without a graph, the lse in the precision that the kernel's backward pass needs.

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
    """The autograd function. The attention's tensors are separate arguments, because only arguments get gradients."""

    @staticmethod
    def forward(
        ctx: Any, numbers: Attention, name: str, query: Tensor, key: Tensor, value: Tensor, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        result = KERNELS[name].forward(Problem(query, key, value, numbers.with_tensors(tensors)))
        ctx.numbers, ctx.name = numbers, name
        # Tensors are saved only by save_for_backward, so that autograd detects in-place changes.
        ctx.save_for_backward(result.out, result.lse, query, key, value, *tensors)
        ctx.set_materialize_grads(False)
        return result.out, result.lse

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
        out, lse, *inputs = ctx.saved_tensors
        grad_out = torch.zeros_like(out) if grad_out is None else grad_out
        return None, None, *backward(ctx.numbers, ctx.name, grad_out, grad_lse, out, lse, *inputs)


def backward(numbers: Attention, name: str, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return the gradients of query, key, value and of the attention's tensors.

    Without a graph if none is recorded, which saves 50 µs.

    Args:
        numbers: the attention without its tensors.
        name: the kernel that ran forward.
        tensors: grad_out, grad_lse, out, lse, query, key, value, and the attention's, in the order of TENSORS.
    """
    # Incoming gradients may have no memory although the inputs have: those of `is_grads_batched` are inside torch.vmap.
    if not has_own_memory(*tensors):
        name = "torch"
    if torch.is_grad_enabled() or carries_tangent(*tensors):
        return _Backward.apply(numbers, name, *tensors)
    return _Backward.forward(None, numbers, name, *tensors)  # type: ignore[arg-type]


class _Backward(torch.autograd.Function):
    """The backward pass as an autograd function, so that a second derivative raises instead of being silently zero."""

    @staticmethod
    def forward(
        ctx: Any, numbers: Attention, name: str, grad_out: Tensor, grad_lse: Tensor | None, out: Tensor, lse: Tensor,
        query: Tensor, key: Tensor, value: Tensor, *tensors: Tensor | None,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        problem = Problem(query, key, value, numbers.with_tensors(tensors))
        if grad_lse is not None and name == "torch" and with_gradients("triton", problem):
            name = "triton"  # torch's fused operators have no gradient of the lse, and blockwise torch is slower
        grads = KERNELS[name].backward(problem, Result(out, lse), grad_out, grad_lse)
        return grads.query, grads.key, grads.value, *map(grads.attention.get, TENSORS)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        refuse_second_derivative()


def refuse_second_derivative(*_: Any) -> NoReturn:
    """Refuse to differentiate a gradient, as the backward pass of a backward pass."""
    raise KernelError(
        "attention was differentiated twice, but its kernels compute first derivatives only. For a second "
        "derivative use torch.func.hessian or jvp of grad, or on a short sequence compute "
        "softmax(query @ key.mT * scale) @ value in plain torch."
    )


def first_derivative_only(backward: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Decorate the backward pass of an autograd function, so that its gradients refuse to be differentiated.

    Unlike torch's `once_differentiable`, it refuses also where the incoming gradient is constant, as after `out.sum()`:
    there torch's returns gradients without a graph, and a penalty on them would silently have no effect.
    """

    @wraps(backward)
    def once(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        with torch.no_grad():
            answers = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return answers
        anchor = torch.empty(0, requires_grad=True)
        return tuple(None if answer is None else _Refusing.apply(anchor, answer) for answer in answers)

    return once


class _Refusing(torch.autograd.Function):
    """The identity of its second argument, with a graph that refuses to be differentiated."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, answer: Tensor) -> Tensor:
        return answer.view_as(answer)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        refuse_second_derivative()
