"""Ring attention: queries stay, keys and values travel, and partial rows are merged by their lse.

Forward and backward are exact. While a rank computes with one part of the keys, it receives the next one.
Source: Liu, Zaharia and Abbeel 2023 (ring attention); Milakov and Gimelshein 2018 (merging by lse).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from clearhead.distributed.call import Block, Call
from clearhead.distributed.exchange import KEY_GRADIENTS, VALUE_GRADIENTS, VALUES, Transfer, around
from clearhead.kernels import Gradients, Problem, Result
from clearhead.kernels.autograd import forward as kernel_forward
from clearhead.kernels.native.call import lse_dtype, wide
from clearhead.kernels.plan import choose
from clearhead.spec import FIELDS, TENSORS, Attention, Axes

Arriving = list[tuple[Transfer, Tensor]]


def run(call: Call, query: Tensor, key: Tensor, value: Tensor, attention: Attention) -> Result:
    """Compute this rank's rows, differentiably.

    Args:
        query: (B, H, L_r, D), this rank's.
        key, value: (B, H_kv, S_r, D or E), this rank's.
        attention: the attention of this rank's queries over all keys.
    Memory: O(inputs + outputs), and the keys and values of one other rank, or of two if there are three or more.
    """
    attention = attention.join_biases()
    tensors = attention.tensor_list()
    if Problem(query, key, value, attention).learns():
        out, lse = _Ring.apply(call, attention.without_tensors(), query, key, value, *tensors)
    else:
        out, lse = forward(call, query, key, value, attention)
    return Result(out, lse.to(wide(query.dtype)))


def forward(call: Call, query: Tensor, key: Tensor, value: Tensor, attention: Attention) -> tuple[Tensor, Tensor]:
    """Compute this rank's output and lse, in the precision that `backward` needs, without a graph."""
    parts = attention.change(sinks=None)
    total = Merged(query, value.shape[-1])
    with torch.no_grad():
        for owner, keys, values in _travelling(call, key, value):
            for block in call.blocks(parts, owner):
                result = kernel_forward(_problem(query, keys, values, block), call.kernel)
                total.add(block.rows, result.out, result.lse)
        return total.result(attention.sinks)


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
        ctx: Any, call: Call, numbers: Attention, query: Tensor, key: Tensor, value: Tensor, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        out, lse = forward(call, query, key, value, numbers.with_tensors(tensors))
        ctx.call, ctx.numbers = call, numbers
        ctx.learning = [name for name, needed in zip(TENSORS, ctx.needs_input_grad[5:], strict=True) if needed]
        ctx.save_for_backward(out, lse, query, key, value, *tensors)
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
        out, lse, query, key, value, *tensors = ctx.saved_tensors
        grad_out = torch.zeros_like(out) if grad_out is None else grad_out
        return None, None, *backward(
            ctx.call, (query, key, value), ctx.numbers.with_tensors(tensors), ctx.learning, Result(out, lse),
            grad_out, grad_lse,
        )  # fmt: skip


def backward(
    call: Call,
    inputs: tuple[Tensor, Tensor, Tensor],
    attention: Attention,
    learning: list[str],
    result: Result,
    grad_out: Tensor,
    grad_lse: Tensor | None,
) -> list[Tensor | None]:
    """Return the gradients of query, key, value and of the attention's tensors, in the order of TENSORS.

    Keys and values go around the ring once more; their gradients travel one step behind them and end at their owner. A
    rank computes one half of its own keys while the first other keys arrive, and the other half while the gradients
    return. The gradient of an (H,) tensor is this rank's part; its sum over ranks is the whole gradient.
    """
    query, key, value = inputs
    ranks, dtype = call.ranks, wide(query.dtype)
    grad_query = torch.zeros_like(query, dtype=dtype, memory_format=torch.contiguous_format)
    own = {name: torch.zeros_like(getattr(attention, name), dtype=dtype) for name in learning}
    parts = attention.change(sinks=None)

    def add(blocks: Iterable[Block], keys: Tensor, values: Tensor, grad_key: Tensor, grad_value: Tensor) -> None:
        """Add the gradients of some blocks."""
        for block in blocks:
            problem = _learning(_problem(query, keys, values, block), learning)
            whole = Result(result.out[:, :, block.rows], result.lse[:, :, block.rows])
            upstream = None if grad_lse is None else grad_lse[:, :, block.rows]
            grads = _of_some_keys(call, problem, whole, grad_out[:, :, block.rows], upstream)
            grad_query[:, :, block.rows] += grads.query
            grad_key[:, :, block.keys] += grads.key
            grad_value[:, :, block.keys] += grads.value
            for name in learning:
                if name != "sinks":
                    _target(own[name], name, block).add_(grads.attention[name])

    def zeros(owner: int) -> tuple[Tensor, Tensor]:
        """Return zeros for the gradients of a rank's keys and values."""
        widths = (call.width, call.value_width)
        return tuple(key.new_zeros(call.shapes(width)[owner], dtype=dtype) for width in widths)  # type: ignore[return-value]

    blocks, mine = list(call.blocks(parts, ranks.rank)), zeros(ranks.rank)
    half = (len(blocks) + 1) // 2
    arriving: Arriving = []  # the gradients that come with the keys of the next step
    for owner, keys, values in _travelling(call, key, value):
        if owner == ranks.rank:
            add(blocks[:half], keys, values, *mine)
            continue
        grads = zeros(owner)
        add(call.blocks(parts, owner), keys, values, *grads)
        _add_arrived(grads, arriving)
        following = (owner - 1) % ranks.size
        arriving = [
            (ranks.start(ranks.rank + 1, given, ranks.rank - 1, taken, tag), taken)
            for given, taken, tag in zip(grads, zeros(following), (KEY_GRADIENTS, VALUE_GRADIENTS), strict=True)
        ]
    add(blocks[half:], key, value, *mine)
    _add_arrived(mine, arriving)
    if "sinks" in own:
        own["sinks"] = _sink_gradient(attention.tensors()["sinks"], result, grad_out, grad_lse)
    grad_key, grad_value = mine
    first = [grad_query.to(query.dtype), grad_key.to(key.dtype), grad_value.to(value.dtype)]
    return [*first, *(_typed(own, attention, name) for name in TENSORS)]


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
