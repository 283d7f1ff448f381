"""Exchange heads for sequence: each rank computes whole rows of some heads.

One all-to-all before the computation and one after it. Source: Jacobs et al. 2023 (DeepSpeed Ulysses).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from clearhead.distributed.call import Call
from clearhead.distributed.exchange import Ranks
from clearhead.distributed.placement import Piece, positions
from clearhead.kernels import Problem, Result
from clearhead.multihead.fused import fused
from clearhead.spec import Attention


def run(call: Call, query: Tensor, key: Tensor, value: Tensor, attention: Attention, *, learns: bool) -> Result:
    """Compute this rank's rows, differentiably.

    Args:
        attention: the attention of all queries over all keys. None of its tensors has a query axis.
        learns: whether a gradient is needed, on all ranks or on none.
    Memory: O(inputs + outputs) of whole rows of H / ranks heads.
    """
    ranks, queries, keys = call.ranks, call.query_pieces, call.key_pieces
    query_heads, key_heads, value_heads = _exchanged(ranks, True, learns, [queries, keys, keys], query, key, value)
    share = query.shape[1] // ranks.size
    part = attention.change(rule=None).heads(slice(ranks.rank * share, (ranks.rank + 1) * share))
    result = fused(Problem(query_heads, key_heads, value_heads, part.change(rule=attention.rule)), call.kernel)
    out, lse = _exchanged(ranks, False, learns, [queries, queries], result.out, result.lse[..., None])
    return Result(out, lse[..., 0])


def _exchanged(
    ranks: Ranks, to_heads: bool, learns: bool, pieces: list[list[list[Piece]]], *tensors: Tensor
) -> tuple[Tensor, ...]:
    """Exchange (B, H, L_r, D) for (B, H / ranks, L, D), in the order of positions, or back.

    If one tensor of one rank needs a gradient, all ranks exchange the gradients of all tensors.
    """
    anchor = tensors[0].new_zeros((), requires_grad=learns)
    return _Exchange.apply(ranks, to_heads, pieces, anchor, *tensors)


class _Exchange(torch.autograd.Function):
    """Both exchanges; the gradient of each is the other. `anchor` makes the output need a gradient."""

    @staticmethod
    def forward(
        ctx: Any, ranks: Ranks, to_heads: bool, pieces: list[list[list[Piece]]], anchor: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.ranks, ctx.to_heads, ctx.pieces = ranks, to_heads, pieces
        exchange = _scatter_heads if to_heads else _gather_heads
        return tuple(exchange(ranks, own, tensor) for own, tensor in zip(pieces, tensors, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        exchange = _gather_heads if ctx.to_heads else _scatter_heads
        given = (exchange(ctx.ranks, own, grad) for own, grad in zip(ctx.pieces, grads, strict=True))
        return None, None, None, None, *given


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
