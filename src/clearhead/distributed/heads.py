"""Exchange heads for sequence: each rank computes whole rows of some heads.

An all-to-all before the computation and one after it. Source: Jacobs et al. 2023 (DeepSpeed Ulysses).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clearhead.distributed.call import Call
from clearhead.distributed.comparing import Steps, begin_backward
from clearhead.distributed.exchange import Ranks
from clearhead.distributed.placement import Piece, positions
from clearhead.kernels import Problem, Result
from clearhead.kernels.autograd import first_derivative_only
from clearhead.kernels.precision import wide
from clearhead.multihead.fused import fused
from clearhead.spec import Attention


def run(
    call: Call, query: Tensor, key: Tensor, value: Tensor, attention: Attention, number: int, *, learns: bool
) -> Result:
    """Compute this rank's rows, differentiably.

    Args:
        attention: the attention of all queries over all keys. None of its tensors has a query axis.
        number: the number of the call, for its backward pass.
        learns: whether a gradient is needed, on all ranks or on none.
    Memory: O(inputs + outputs) of whole rows of H / ranks heads.
    """
    anchor = query.new_zeros((), requires_grad=learns)
    tensors = attention.tensor_list()
    out, lse = _Heads.apply(call, number, attention.without_tensors(), anchor, query, key, value, *tensors)
    return Result(out, lse[..., 0])


class _Heads(torch.autograd.Function):
    """The exchanges and the computation between them, whose own graph is kept for the backward pass.

    If one tensor of one rank needs a gradient, all ranks exchange the gradients of all tensors. `anchor` makes the
    output need a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, call: Call, number: int, numbers: Attention, anchor: Tensor, query: Tensor, key: Tensor,
        value: Tensor, *tensors: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        ranks, queries, learns = call.ranks, call.query_pieces, ctx.needs_input_grad[3]
        needed = [learns and own for own in ctx.needs_input_grad[7:]]
        with Steps(ranks, "attention", query.device) as steps:
            given = zip(_inputs(call), (query, key, value), strict=True)
            whole = [_scatter_heads(ranks, pieces, tensor).requires_grad_(learns) for pieces, tensor in given]
            own = [t if t is None else t.detach().requires_grad_(n) for t, n in zip(tensors, needed, strict=True)]
            made = steps(_of_own_heads, call, whole, numbers.with_tensors(own), learns)
            made = made or _nothing(whole[0], call.value_width)
            answers = [_gather_heads(ranks, queries, tensor.detach()) for tensor in made]
        ctx.call, ctx.number, ctx.like = call, number, [(each.shape, each.dtype, each.device) for each in answers]
        if learns:
            ctx.made, ctx.whole, ctx.own = made, whole, own
        ctx.set_materialize_grads(False)
        return answers[0], answers[1]

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        call, ranks, device = ctx.call, ctx.call.ranks, ctx.like[0][2]
        exists, _ = begin_backward(ranks, ctx.number, grads, tuple, device)
        with Steps(ranks, "backward of attention", device) as steps:
            upstream = [
                _scatter_heads(ranks, call.query_pieces, _or_zeros(grad, *like)) if known else None
                for known, grad, like in zip(exists, grads, ctx.like, strict=True)
            ]
            leaves = [*ctx.whole, *(own for own in ctx.own if own is not None and own.requires_grad)]
            inner = steps(_gradients, ctx.made, leaves, upstream) or [torch.zeros_like(leaf) for leaf in leaves]
            given = zip(_inputs(call), inner[:3], strict=True)
            first = [_gather_heads(ranks, pieces, grad) for pieces, grad in given]
        others = iter(inner[3:])
        last = [next(others) if own is not None and own.requires_grad else None for own in ctx.own]
        return None, None, None, None, *first, *last


def _inputs(call: Call) -> list[list[list[Piece]]]:
    """Return the positions of query, key and value on each rank."""
    return [call.query_pieces, call.key_pieces, call.key_pieces]


def _of_own_heads(call: Call, whole: list[Tensor], attention: Attention, learns: bool) -> list[Tensor]:
    """Return output and lse, (B, H / ranks, L, E or 1), of this rank's heads."""
    share = whole[0].shape[1]
    query, key, value = whole
    with torch.set_grad_enabled(learns):
        part = attention.change(rule=None).heads(slice(call.ranks.rank * share, (call.ranks.rank + 1) * share))
        result = fused(Problem(query, key, value, part.change(rule=attention.rule)), call.kernel)
        return [result.out, result.lse[..., None]]


def _nothing(query: Tensor, width: int) -> list[Tensor]:
    """Return what a rank sends whose computation failed."""
    out = query.new_zeros((*query.shape[:3], width))
    return [out, out.new_zeros((*query.shape[:3], 1), dtype=wide(query.dtype))]


def _or_zeros(grad: Tensor | None, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.zeros(shape, dtype=dtype, device=device) if grad is None else grad


def _gradients(made: list[Tensor], leaves: list[Tensor], upstream: list[Tensor | None]) -> list[Tensor]:
    """Return the gradients of the computation between the exchanges, zeros where it has none."""
    pairs = [(out, grad) for out, grad in zip(made, upstream, strict=True) if grad is not None and out.requires_grad]
    if not pairs:
        return [torch.zeros_like(leaf) for leaf in leaves]
    outs, grads = zip(*pairs, strict=True)
    return list(torch.autograd.grad(outs, leaves, grads, retain_graph=True, materialize_grads=True))


def _scatter_heads(ranks: Ranks, pieces: Sequence[Sequence[Piece]], tensor: Tensor) -> Tensor:
    batch, heads, _, width = tensor.shape
    share = heads // ranks.size
    shapes = [(batch, share, len(positions(own)), width) for own in pieces]
    taken = ranks.all_to_all([part.contiguous() for part in tensor.split(share, 1)], shapes)
    where = torch.cat([positions(own) for own in pieces]).to(tensor.device)
    whole = tensor.new_empty(batch, share, len(where), width)
    return whole.index_copy_(2, where, torch.cat(taken, 2))


def _gather_heads(ranks: Ranks, pieces: Sequence[Sequence[Piece]], tensor: Tensor) -> Tensor:
    batch, share, _, width = tensor.shape
    give = [tensor.index_select(2, positions(own).to(tensor.device)) for own in pieces]
    length = len(positions(pieces[ranks.rank]))
    return torch.cat(ranks.all_to_all(give, [(batch, share, length, width)] * ranks.size), 1)
