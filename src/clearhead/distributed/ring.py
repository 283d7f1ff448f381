"""Ring attention: queries stay, keys and values travel, and partial rows are merged by their lse.

Forward and backward are exact. While a rank computes with one part of the keys, it receives the next one.
Source: Liu, Zaharia and Abbeel 2023 (ring attention); Milakov and Gimelshein 2018 (merging by lse).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor

from clearhead.distributed.call import Block, Call
from clearhead.distributed.comparing import Steps, begin_backward
from clearhead.distributed.exchange import KEY_GRADIENTS, VALUE_GRADIENTS, VALUES, Transfer, around
from clearhead.kernels import Gradients, Problem, Result
from clearhead.kernels.autograd import first_derivative_only
from clearhead.kernels.autograd import forward as kernel_forward
from clearhead.kernels.plan import choose
from clearhead.kernels.precision import lse_dtype, wide
from clearhead.spec import FIELDS, TENSORS, Attention, Axes

Arriving = list[tuple[Transfer, Tensor]]


def run(call: Call, query: Tensor, key: Tensor, value: Tensor, attention: Attention, number: int) -> Result:
    """Compute this rank's rows, differentiably.

    Args:
        query: (B, H, L_r, D), this rank's.
        key, value: (B, H_kv, S_r, D or E), this rank's.
        attention: the attention of this rank's queries over all keys.
        number: the number of the call, for its backward pass.
    Memory: O(inputs + outputs), and the keys and values of one other rank, or of two if there are three or more.
    """
    attention = attention.join_biases()
    tensors = attention.tensor_list()
    if Problem(query, key, value, attention).learns():
        out, lse = _Ring.apply(call, number, attention.without_tensors(), query, key, value, *tensors)
    else:
        out, lse = forward(call, query, key, value, attention)
    return Result(out, lse.to(wide(query.dtype)))


def forward(call: Call, query: Tensor, key: Tensor, value: Tensor, attention: Attention) -> tuple[Tensor, Tensor]:
    """Compute this rank's output and lse, in the precision that `backward` needs, without a graph."""
    parts = attention.change(sinks=None)

    def add(owner: int, keys: Tensor, values: Tensor) -> None:
        """Add the part of one owner's keys."""
        for block in call.blocks(parts, owner):
            result = kernel_forward(_problem(query, keys, values, block), call.kernel)
            total.add(block.rows, result.out, result.lse)

    with torch.no_grad(), Steps(call.ranks, "attention", query.device) as steps:
        total = Merged(query, value.shape[-1])
        for owner, keys, values in _travelling(call, key, value):
            steps(add, owner, keys, values)
        made = steps(total.result, attention.sinks)
    return cast(tuple[Tensor, Tensor], made)  # Steps has raised if there is none


class Merged:
    """Accumulates output and lse of rows whose keys arrive in parts."""

    def __init__(self, query: Tensor, width: int) -> None:
        self._dtype = query.dtype
        self._out = query.new_zeros((*query.shape[:3], width), dtype=wide(query.dtype))
        self._lse = query.new_full(query.shape[:3], -torch.inf, dtype=_lse_dtype(query))
        self._begun: list[slice] = []  # runs of rows that have at least one part

    def add(self, rows: slice, out: Tensor, lse: Tensor) -> None:
        """Merge the output and lse of some rows over more keys."""
        if all(rows.stop <= begun.start or begun.stop <= rows.start for begun in self._begun):
            self._begun.append(rows)
            self._out[:, :, rows], self._lse[:, :, rows] = out, lse
            return
        before, lse = self._lse[:, :, rows], lse.to(self._lse.dtype)
        after = torch.logaddexp(before, lse)
        # In the output's own dtype: the lse is float64 for float32. lerp_ would turn inf into NaN.
        kept, share = (_share(part, after).to(self._out.dtype) for part in (before, lse))
        self._out[:, :, rows].mul_(kept).addcmul_(out.to(self._out.dtype), share)
        self._lse[:, :, rows] = after

    def result(self, sinks: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return output in query's dtype and lse, after every part was added."""
        if sinks is not None:
            before = self._lse
            self._lse = torch.logaddexp(before, sinks.to(before.dtype)[:, None])
            self._out = self._out * _share(before, self._lse)
        return self._out.to(self._dtype), self._lse


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Return exp(part - whole) with a trailing axis, 0 where the part is empty."""
    return torch.where(part == -torch.inf, 0.0, torch.exp(part - whole))[..., None]


class _Ring(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, call: Call, number: int, numbers: Attention, query: Tensor, key: Tensor, value: Tensor,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        out, lse = forward(call, query, key, value, numbers.with_tensors(tensors))
        ctx.call, ctx.number, ctx.numbers = call, number, numbers
        ctx.learning = [name for name, needed in zip(TENSORS, ctx.needs_input_grad[6:], strict=True) if needed]
        ctx.save_for_backward(out, lse, query, key, value, *tensors)
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        given = next(grad for grad in grads if grad is not None)
        _, saved = begin_backward(ctx.call.ranks, ctx.number, grads, lambda: ctx.saved_tensors, given.device)
        out, lse, query, key, value, *tensors = saved
        return None, None, None, *backward(
            ctx.call, (query, key, value), ctx.numbers.with_tensors(tensors), ctx.learning, Result(out, lse), *grads
        )  # fmt: skip


def backward(
    call: Call,
    inputs: tuple[Tensor, Tensor, Tensor],
    attention: Attention,
    learning: list[str],
    result: Result,
    grad_out: Tensor | None,
    grad_lse: Tensor | None,
) -> list[Tensor | None]:
    """Return the gradients of query, key, value and of the attention's tensors, in the order of TENSORS.

    Keys and values go around the ring once more; their gradients travel one step behind them and end at their owner. A
    rank computes one half of its own keys while the first other keys arrive, and the other half while the gradients
    return. The gradient of an (H,) tensor is this rank's part; its sum over ranks is the whole gradient.
    """
    _, key, value = inputs
    ranks, parts = call.ranks, attention.change(sinks=None)
    with Steps(ranks, "backward of attention", key.device) as steps:
        sums = _Sums(call, inputs, attention, learning, result, grad_out, grad_lse)
        blocks, mine = steps(list, call.blocks(parts, ranks.rank)) or [], sums.of_keys(ranks.rank)
        half = (len(blocks) + 1) // 2
        arriving: Arriving = []  # the gradients that come with the keys of the next step
        for owner, keys, values in _travelling(call, key, value):
            if owner == ranks.rank:
                steps(sums.add, blocks[:half], keys, values, *mine)
                continue
            grads = sums.of_keys(owner)
            steps(sums.add, call.blocks(parts, owner), keys, values, *grads)
            _add_arrived(grads, arriving)
            following = (owner - 1) % ranks.size
            arriving = [
                (ranks.start(ranks.rank + 1, given, ranks.rank - 1, taken, tag), taken)
                for given, taken, tag in zip(
                    grads, sums.of_keys(following), (KEY_GRADIENTS, VALUE_GRADIENTS), strict=True
                )
            ]
        steps(sums.add, blocks[half:], key, value, *mine)
        _add_arrived(mine, arriving)
        made = steps(sums.total, *mine)
    return made or []


class _Sums:
    """Accumulates the gradients of this rank's queries and of the attention's tensors; and of keys, given with them."""

    def __init__(
        self, call: Call, inputs: tuple[Tensor, Tensor, Tensor], attention: Attention, learning: list[str],
        result: Result, grad_out: Tensor | None, grad_lse: Tensor | None,
    ) -> None:  # fmt: skip
        self._call, self._inputs, self._attention, self._learning = call, inputs, attention, learning
        self._result, self._grad_lse = result, grad_lse
        self._grad_out = torch.zeros_like(result.out) if grad_out is None else grad_out
        self._dtype = wide(inputs[0].dtype)
        self._query = torch.zeros_like(inputs[0], dtype=self._dtype, memory_format=torch.contiguous_format)
        self._own = {name: torch.zeros_like(getattr(attention, name), dtype=self._dtype) for name in learning}

    def of_keys(self, owner: int) -> tuple[Tensor, Tensor]:
        """Return zeros for the gradients of a rank's keys and values."""
        shapes = [self._call.shapes(width)[owner] for width in (self._call.width, self._call.value_width)]
        key, value = (self._inputs[1].new_zeros(shape, dtype=self._dtype) for shape in shapes)
        return key, value

    def add(self, blocks: Iterable[Block], keys: Tensor, values: Tensor, grad_key: Tensor, grad_value: Tensor) -> None:
        """Add the gradients of some blocks."""
        for block in blocks:
            problem = _learning(_problem(self._inputs[0], keys, values, block), self._learning)
            whole = Result(self._result.out[:, :, block.rows], self._result.lse[:, :, block.rows])
            upstream = None if self._grad_lse is None else self._grad_lse[:, :, block.rows]
            grads = _of_some_keys(self._call, problem, whole, self._grad_out[:, :, block.rows], upstream)
            self._query[:, :, block.rows] += grads.query
            grad_key[:, :, block.keys] += grads.key
            grad_value[:, :, block.keys] += grads.value
            for name in self._learning:
                if name != "sinks":
                    _target(self._own[name], name, block).add_(grads.attention[name])

    def total(self, grad_key: Tensor, grad_value: Tensor) -> list[Tensor | None]:
        """Return all gradients in the dtypes of their tensors, after every part was added."""
        if "sinks" in self._own:
            sinks = self._attention.tensors()["sinks"]
            self._own["sinks"] = _sink_gradient(sinks, self._result, self._grad_out, self._grad_lse)
        sums = zip((self._query, grad_key, grad_value), self._inputs, strict=True)
        return [
            *(grad.to(tensor.dtype) for grad, tensor in sums),
            *(_typed(self._own, self._attention, name) for name in TENSORS),
        ]


def _add_arrived(gradients: tuple[Tensor, Tensor], arriving: Arriving) -> None:
    for gradient, (transfer, taken) in zip(gradients, arriving, strict=False):
        transfer.wait()
        gradient += taken


def _of_some_keys(call: Call, problem: Problem, whole: Result, grad_out: Tensor, grad_lse: Tensor | None) -> Gradients:
    """Return the gradients of a problem with some of the rows' keys, given output and lse of the whole rows.

    A kernel that accepts the whole row's output computes them directly. For others, these keys form a smaller attention
    whose output has the share exp(own lse - whole lse) in the row.
    """
    kernel = choose(problem, call.kernel)[0]
    if kernel.takes_some_keys(problem):
        return kernel.backward(problem, whole, grad_out, grad_lse)
    own = kernel.forward(problem)
    share = _share(own.lse.to(whole.lse.dtype), whole.lse)
    towards = (grad_out.to(whole.lse.dtype) * (own.out.to(whole.lse.dtype) - whole.out.to(whole.lse.dtype))).sum(-1)
    if grad_lse is not None:
        towards = towards + grad_lse
    own_grad_lse = (towards * share[..., 0]).to(wide(problem.query.dtype))
    return kernel.backward(problem, own, (grad_out * share).to(grad_out.dtype), own_grad_lse)


def _sink_gradient(sinks: Tensor, result: Result, grad_out: Tensor, grad_lse: Tensor | None) -> Tensor:
    """Return the gradient of the sinks, (H,): a sink takes weight exp(sink - lse) and has no value."""
    lse = result.lse
    weight = torch.exp(sinks.to(lse.dtype)[:, None] - lse)
    back = -(grad_out.to(lse.dtype) * result.out.to(lse.dtype)).sum(-1)
    if grad_lse is not None:
        back = back + grad_lse
    return (weight * back).sum((0, 2))


def _target(gradient: Tensor, name: str, block: Block) -> Tensor:
    """Return the part of a field's gradient that belongs to a block."""
    if FIELDS[name].axes is Axes.HEADS:
        return gradient
    four = gradient[(None,) * (4 - gradient.dim())]
    rows = slice(None) if four.shape[2] == 1 else block.rows
    return four[:, :, rows, slice(None) if four.shape[3] == 1 else block.positions]


def _typed(own: dict[str, Tensor], attention: Attention, name: str) -> Tensor | None:
    return own[name].to(getattr(attention, name).dtype) if name in own else None


def _problem(query: Tensor, keys: Tensor, values: Tensor, block: Block) -> Problem:
    return Problem(query[:, :, block.rows], keys[:, :, block.keys], values[:, :, block.keys], block.attention)


def _learning(problem: Problem, learning: list[str]) -> Problem:
    """Return the problem with requires_grad set on its learning fields, which slicing without a graph has lost."""
    own = {
        name: tensor.detach().requires_grad_(name in learning)
        for name, tensor in problem.attention.tensors().items()
        if FIELDS[name].learns
    }
    return problem.change(**own) if own else problem


def _travelling(call: Call, key: Tensor, value: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield each rank's keys and values, this one's first; the next ones are received during the computation."""
    keys = around(call.ranks, key.contiguous(), call.shapes(call.width))
    values = around(call.ranks, value.contiguous(), call.shapes(call.value_width), VALUES)
    for (owner, held), (_, held_value) in zip(keys, values, strict=True):
        yield owner, held, held_value


def _lse_dtype(query: Tensor) -> torch.dtype:
    return lse_dtype(query.dtype) if query.device.type == "cpu" else wide(query.dtype)
