"""Attention as a custom operator of torch: `torch.ops.clearhead.attend`.

torch.compile, torch.export, vmap, FakeTensor, meta tensors and the FLOP counter see operators, not Python. Plain eager
code calls the kernels directly, because that costs several times less per call.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from clearhead import kernels
from clearhead.kernels.autograd import forward, refuse_second_derivative
from clearhead.kernels.plan import choose
from clearhead.kernels.precision import lse_dtype, wide
from clearhead.spec import ARGUMENTS, FIELDS, LEARNABLE, Attention


def run(problem: kernels.Problem, kernel: str | None) -> kernels.Result:
    """Compute a problem through the operator. The dropout seed is a tensor, so that no value leaves the graph."""
    problem = problem.join_biases()
    if problem.attention.dropout_p > 0:
        problem = problem.change(seed=torch.randint(2**62, (), device="cpu"))
    arguments = (problem.query, problem.key, problem.value, *problem.attention.arguments(), kernel)
    out, lse = _Transformable.apply(*arguments) if _is_transformed() else attend(*arguments)
    return kernels.Result(out, lse.to(wide(problem.query.dtype)))


def problem_of(given: Mapping[str, Any]) -> kernels.Problem:
    """Return the problem of the operator's arguments, given by name."""
    return kernels.Problem(given["query"], given["key"], given["value"], Attention.from_arguments(given))


def lse_dtype_of(query: Tensor) -> torch.dtype:
    """Return the dtype of the operator's lse."""
    return lse_dtype(query.dtype) if query.device.type == "cpu" else wide(query.dtype)  # some devices have no float64


def _is_transformed() -> bool:
    """Return whether a torch.func transform is active, outside torch.compile, which traces through it.

    torch.func.functionalize does not support autograd functions, and handles the operator itself.
    """
    if torch.compiler.is_compiling():
        return False
    top = torch._C._functorch.peek_interpreter_stack()
    return top is not None and top.key() != torch._C._functorch.TransformType.Functionalize


# The operators' arguments, generated from the fields of `Attention`.
INPUTS = ("query", "key", "value", *ARGUMENTS, "kernel")
BACKWARD_INPUTS = ("grad_out", "grad_lse", "out", "lse", *INPUTS, "learning")
_TENSORS = ("query", "key", "value", *(name for name in ARGUMENTS if FIELDS[name].schema == "Tensor?"))
_SCHEMA = ", ".join(
    ["Tensor query, Tensor key, Tensor value", *(f"{FIELDS[name].schema} {name}" for name in ARGUMENTS), "str? kernel"]
)


def _named(names: tuple[str, ...], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))


@torch.library.custom_op("clearhead::attend", mutates_args=(), schema=f"({_SCHEMA}) -> (Tensor, Tensor)")
def attend(*inputs: Any) -> tuple[Tensor, Tensor]:
    """Return (out, lse) of the problem with these INPUTS, the lse in the dtype that backward reads."""
    given = _named(INPUTS, inputs)
    problem = problem_of(given)
    result = forward(problem, given["kernel"])
    return result.out.contiguous(), result.lse.contiguous().to(lse_dtype_of(problem.query))


@attend.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *_rest: Any) -> tuple[Tensor, Tensor]:
    out = query.new_empty((*query.shape[:3], value.shape[3]))
    return out, query.new_empty(query.shape[:3], dtype=lse_dtype_of(query))


@torch.library.custom_op(
    "clearhead::attend_backward",
    mutates_args=(),
    schema=f"(Tensor grad_out, Tensor? grad_lse, Tensor out, Tensor lse, {_SCHEMA}, str learning) -> Tensor[]",
)
def attend_backward(*inputs: Any) -> list[Tensor]:
    """Return the gradients of query, key, value and of the LEARNABLE fields.

    Args:
        inputs: BACKWARD_INPUTS. `learning` has the names of the fields that need a gradient, separated by spaces; the
            gradients of the others are empty tensors.
    """
    given = _named(BACKWARD_INPUTS, inputs)
    learning = given["learning"].split()
    for name in LEARNABLE:
        if given[name] is not None:
            given[name] = given[name].detach().requires_grad_(name in learning)
    problem = problem_of(given)
    result = kernels.Result(given["out"], given["lse"])
    grads = choose(problem, given["kernel"])[0].backward(problem, result, given["grad_out"], given["grad_lse"])
    return [
        *(grad.contiguous() for grad in (grads.query, grads.key, grads.value)),
        *(grads.attention[name].contiguous() if name in learning else problem.query.new_empty(0) for name in LEARNABLE),
    ]


@attend_backward.register_fake
def _(*inputs: Any) -> list[Tensor]:
    given = _named(BACKWARD_INPUTS, inputs)
    learning = given["learning"].split()
    return [
        *(torch.empty_like(given[name], memory_format=torch.contiguous_format) for name in ("query", "key", "value")),
        *(given[n].new_empty(given[n].shape) if n in learning else given["query"].new_empty(0) for n in LEARNABLE),
    ]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    given = _named(INPUTS, inputs)
    needed = dict(zip(INPUTS, ctx.needs_input_grad, strict=False))  # torch.library appends an argument
    ctx.save_for_backward(*output, *(given[name] for name in _TENSORS))
    ctx.numbers = {name: value for name, value in given.items() if name not in _TENSORS}
    ctx.learning = [name for name in LEARNABLE if given[name] is not None and needed[name]]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
    out, lse, *tensors = ctx.saved_tensors
    grad_out = torch.zeros_like(out) if grad_out is None else grad_out
    given = ctx.numbers | _named(_TENSORS, tensors)
    inputs = (grad_out, grad_lse, out, lse, *(given[name] for name in INPUTS), " ".join(ctx.learning))
    grads = _TransformableBackward.apply(*inputs) if _is_transformed() else attend_backward(*inputs)
    named = _named(("query", "key", "value", *LEARNABLE), grads)
    return tuple(named[n] if n in ("query", "key", "value") or n in ctx.learning else None for n in INPUTS)


attend.register_autograd(_backward, setup_context=_setup)
attend_backward.register_autograd(refuse_second_derivative)


class _Transformable(torch.autograd.Function):
    """The operator for torch.func (grad, vmap, …), which ignores the autograd formula of a custom operator."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        return attend(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _setup(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
        return _backward(ctx, grad_out, grad_lse)


class _TransformableBackward(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return tuple(attend_backward(*inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        refuse_second_derivative()


@register_flop_formula(torch.ops.clearhead.attend)
def _flops(query: Any, key: Any, value: Any, *_rest: Any, **_options: Any) -> int:
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * (width + value[3])


@register_flop_formula(torch.ops.clearhead.attend_backward)
def _backward_flops(
    grad_out: Any, grad_lse: Any, out: Any, lse: Any, query: Any, key: Any, value: Any, *_rest: Any, **_options: Any
) -> int:
    # Five products: the logits again, the weights' gradient, and one for each of query, key and value.
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * (3 * width + 2 * value[3])
