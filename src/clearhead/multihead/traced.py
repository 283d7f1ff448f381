"""Attention as one operator torch knows: `torch.ops.clearhead.attend`.

torch.compile, torch.export, vmap, FakeTensor, meta tensors and the FLOP counter see operators, not Python. In plain
eager code the kernels are called directly, which is several times cheaper a call.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from clearhead import kernels
from clearhead.errors import KernelError, OptionError
from clearhead.kernels.autograd import forward
from clearhead.kernels.places import lse_dtype, wide
from clearhead.kernels.plan import choose


def run(problem: kernels.Problem, dropout_p: float, kernel: str | None) -> kernels.Result:
    """Compute a problem through the operator. The dropout seed is a tensor, so that no value leaves the graph."""
    dtype = wide(problem.query.dtype)
    seed = torch.randint(2**62, (), device="cpu") if dropout_p > 0 else None
    parts = (
        problem.query, problem.key, problem.value, problem.allow, problem.bias, problem.sinks, problem.alibi, seed,
        problem.scale, *problem.band, problem.softcap, dropout_p, problem.alibi_offset, kernel,
    )  # fmt: skip
    out, lse = _Transformable.apply(*parts) if _transformed() else attend(*parts)
    return kernels.Result(out, lse.to(dtype))


def _transformed() -> bool:
    """Whether torch.func takes derivatives or maps, and not inside torch.compile, which looks through it. Its
    functionalize has no rule for autograd functions, and sees the operator as it is."""
    if torch.compiler.is_compiling():
        return False
    top = torch._C._functorch.peek_interpreter_stack()
    return top is not None and top.key() != torch._C._functorch.TransformType.Functionalize


@torch.library.custom_op("clearhead::attend", mutates_args=())
def attend(
    query: Tensor, key: Tensor, value: Tensor, allow: Tensor | None, bias: Tensor | None, sinks: Tensor | None,
    alibi: Tensor | None, seed: Tensor | None, scale: float, low: int | None, high: int | None, softcap: float | None,
    dropout_p: float, alibi_offset: int, kernel: str | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(out, lse) of a Problem with these parts, the lse in the dtype that backward takes it in."""
    problem = problem_of(
        query, key, value, allow, bias, sinks, alibi, seed, scale, low, high, softcap, dropout_p, alibi_offset
    )
    result = forward(problem, kernel)
    return result.out.contiguous(), result.lse.contiguous().to(lse_dtype_of(query))


@attend.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    out = query.new_empty((*query.shape[:3], value.shape[3]))
    return out, query.new_empty(query.shape[:3], dtype=lse_dtype_of(query))


def lse_dtype_of(query: Tensor) -> torch.dtype:
    """The dtype of the operator's lse."""
    return lse_dtype(query.dtype) if query.device.type == "cpu" else wide(query.dtype)  # some devices have no float64


@torch.library.custom_op("clearhead::attend_backward", mutates_args=())
def attend_backward(
    grad_out: Tensor, grad_lse: Tensor | None, out: Tensor, lse: Tensor,
    query: Tensor, key: Tensor, value: Tensor, allow: Tensor | None, bias: Tensor | None, sinks: Tensor | None,
    alibi: Tensor | None, seed: Tensor | None, scale: float, low: int | None, high: int | None, softcap: float | None,
    dropout_p: float, alibi_offset: int, kernel: str | None,
    bias_learns: bool,
) -> list[Tensor]:  # fmt: skip
    """Gradients of query, key, value, bias, sinks, alibi; those that are not asked for are empty."""
    if bias is not None:
        bias = bias.detach().requires_grad_(bias_learns)
    if alibi is not None:
        alibi = alibi.detach().requires_grad_()
    problem = problem_of(
        query, key, value, allow, bias, sinks, alibi, seed, scale, low, high, softcap, dropout_p, alibi_offset
    )
    found = choose(problem, kernel)[0].backward(problem, kernels.Result(out, lse), grad_out, grad_lse)
    nothing = query.new_empty(0)
    optional = [found.bias if bias_learns else None, found.sinks, found.alibi]
    return [
        *(part.contiguous() for part in (found.query, found.key, found.value)),
        *(nothing.clone() if part is None else part.contiguous() for part in optional),
    ]


@attend_backward.register_fake
def _(
    grad_out: Tensor, grad_lse: Tensor | None, out: Tensor, lse: Tensor,
    query: Tensor, key: Tensor, value: Tensor, allow: Tensor | None, bias: Tensor | None, sinks: Tensor | None,
    alibi: Tensor | None, *rest: Any,
) -> list[Tensor]:  # fmt: skip
    optional = [bias if rest[-1] else None, sinks, alibi]
    return [
        *(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (query, key, value)),
        *(query.new_empty(0) if t is None else t.new_empty(t.shape) for t in optional),
    ]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:8], *output)
    ctx.options = inputs[8:]
    ctx.bias_learns = inputs[4] is not None and ctx.needs_input_grad[4]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
    query, key, value, allow, bias, sinks, alibi, seed, out, lse = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    inputs = (query, key, value, allow, bias, sinks, alibi, seed, *ctx.options)
    parts = (grad_out, grad_lse, out, lse, *inputs, ctx.bias_learns)
    found = _TransformableBackward.apply(*parts) if _transformed() else attend_backward(*parts)
    grad_bias = found[3] if ctx.bias_learns else None
    grad_sinks, grad_alibi = (None if t is None else grad for t, grad in ((sinks, found[4]), (alibi, found[5])))
    return (*found[:3], None, grad_bias, grad_sinks, grad_alibi, *(None,) * 8)


attend.register_autograd(_backward, setup_context=_setup)


class _Transformable(torch.autograd.Function):
    """The same for torch.func (grad, vmap and their like), which does not see a custom operator's own autograd."""

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
        raise KernelError(
            "attention was differentiated twice, and its kernels give first derivatives only. For a second derivative "
            "use torch.func.hessian or jvp of grad, which computes attention in plain torch."
        )


@attend.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    """Fold the mapped axis into the batch."""
    size = info.batch_size
    _refuse_mapped(in_dims[5:7])
    if args[7] is not None and in_dims[7] is None:
        return _one_by_one(attend, size, in_dims, args)
    args = (*args[:7], _one_seed(args[7], in_dims[7]), *args[8:])
    tensors = [_lead(args[i], in_dims[i], size) for i in range(3)]
    batch = tensors[0].shape[1]
    masks = [_fold_mask(args[i], in_dims[i], size, batch) for i in (3, 4)]
    out, lse = attend(*(t.flatten(0, 1) for t in tensors), *masks, *args[5:])
    return (out.unflatten(0, (size, batch)), lse.unflatten(0, (size, batch))), (0, 0)


@attend_backward.register_vmap
def _(info: Any, in_dims: Any, *args: Any) -> tuple[list[Tensor], list[int]]:
    """Fold the mapped axis into the batch, and out of the gradients."""
    size = info.batch_size
    _refuse_mapped(in_dims[9:11])
    if args[11] is not None and in_dims[11] is None:
        return _one_by_one(attend_backward, size, in_dims, args)
    args = (*args[:11], _one_seed(args[11], in_dims[11]), *args[12:])
    if args[-1] or args[9] is not None or args[10] is not None:
        raise OptionError("vmap over the gradient of a float mask, of sinks or of slopes is not supported. Use a loop.")
    tensors = [None if args[i] is None else _lead(args[i], in_dims[i], size) for i in range(7)]
    batch = args[4].shape[0] if in_dims[4] is None else args[4].movedim(in_dims[4], 0).shape[1]
    masks = [_fold_mask(args[i], in_dims[i], size, batch) for i in (7, 8)]
    found = attend_backward(*(None if t is None else t.flatten(0, 1) for t in tensors), *masks, *args[9:])
    folded = [grad.unflatten(0, (size, batch)) for grad in found[:3]]
    return [*folded, *(grad.expand(size, *grad.shape) for grad in found[3:])], [0] * len(found)


def _one_by_one(operator: Any, size: int, in_dims: Any, args: Any) -> Any:
    """Without a fold, for one seed for all: in a batch of them each entry would drop other weights."""
    calls = [
        operator(*(arg if at is None else arg.select(at, i) for arg, at in zip(args, in_dims, strict=True)))
        for i in range(size)
    ]
    found = [torch.stack(parts) for parts in zip(*calls, strict=True)]
    return (found, [0] * len(found)) if operator is attend_backward else (tuple(found), (0,) * len(found))


def _one_seed(seed: Tensor | None, in_dim: int | None) -> Tensor | None:
    """One seed of many: each entry of the batch they are folded into has a pattern of its own."""
    return None if seed is None else seed.select(in_dim or 0, 0)


def _lead(tensor: Tensor, in_dim: int | None, size: int) -> Tensor:
    """Bring the mapped axis to the front, or make one."""
    return tensor.unsqueeze(0).expand(size, *tensor.shape) if in_dim is None else tensor.movedim(in_dim, 0)


def _refuse_mapped(in_dims: Sequence[int | None]) -> None:
    if any(in_dim is not None for in_dim in in_dims):
        raise OptionError(
            "vmap over sinks or slopes is not supported: they belong to heads, which are not mapped. Use a loop."
        )


def _fold_mask(mask: Tensor | None, in_dim: int | None, size: int, batch: int) -> Tensor | None:
    """A mask that broadcasts to (B, H, L, S), mapped or not, for a batch of size·B."""
    if mask is None:
        return None
    if in_dim is None:
        four = mask.view((1,) * (4 - mask.dim()) + tuple(mask.shape))
        return four if four.shape[0] == 1 else four.repeat(size, 1, 1, 1)
    mask = mask.movedim(in_dim, 0)
    four = mask.view(size, *(1,) * (5 - mask.dim()), *mask.shape[1:])
    return four.expand(size, batch, *four.shape[2:]).flatten(0, 1)


def problem_of(
    query: Tensor, key: Tensor, value: Tensor, allow: Tensor | None, bias: Tensor | None, sinks: Tensor | None,
    alibi: Tensor | None, seed: Tensor | None, scale: float, low: int | None, high: int | None, softcap: float | None,
    dropout_p: float, alibi_offset: int,
) -> kernels.Problem:  # fmt: skip
    number = 0 if seed is None else int(seed)
    causal = (low, high) == (None, 0)
    reach = (None, None) if causal else (low, high)
    return kernels.Problem(
        query, key, value, scale, causal, allow, bias, softcap, sinks, dropout_p, number, reach, alibi, alibi_offset
    )


@register_flop_formula(torch.ops.clearhead.attend)
def _flops(query: Any, key: Any, value: Any, *rest: Any, **options: Any) -> int:
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * (width + value[3])


@register_flop_formula(torch.ops.clearhead.attend_backward)
def _backward_flops(
    grad_out: Any, grad_lse: Any, out: Any, lse: Any, query: Any, key: Any, value: Any, *rest: Any, **options: Any
) -> int:
    # Five products: the logits again, the weights' gradient, and one for each of query, key and value.
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * (3 * width + 2 * value[3])
