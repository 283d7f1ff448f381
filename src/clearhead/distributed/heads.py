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


def run(call: Call, query: Tensor, key: Tensor, value: Tensor, attention: Attention) -> Result:
    """Compute this rank's rows, differentiably.

    Args:
        attention: the attention of all queries over all keys. None of its tensors has a query axis.
    Memory: O(inputs + outputs) of whole rows of H / ranks heads.
    """
    query_heads, key_heads, value_heads = (
        _to_heads(call.ranks, tensor, pieces)
        for tensor, pieces in ((query, call.query_pieces), (key, call.key_pieces), (value, call.key_pieces))
    )
    share = query.shape[1] // call.ranks.size
    part = attention.change(rule=None).heads(slice(call.ranks.rank * share, (call.ranks.rank + 1) * share))
    result = fused(Problem(query_heads, key_heads, value_heads, part.change(rule=attention.rule)), call.kernel)
    out = _to_sequence(call.ranks, result.out, call.query_pieces)
    lse = _to_sequence(call.ranks, result.lse[..., None], call.query_pieces)
    return Result(out, lse[..., 0])


def _to_heads(ranks: Ranks, tensor: Tensor, pieces: list[list[Piece]]) -> Tensor:
    """Exchange (B, H, L_r, D) for (B, H / ranks, L, D), in the order of positions."""
    return _Exchange.apply(ranks, pieces, True, tensor)


def _to_sequence(ranks: Ranks, tensor: Tensor, pieces: list[list[Piece]]) -> Tensor:
    """Exchange (B, H / ranks, L, D), in the order of positions, for (B, H, L_r, D)."""
    return _Exchange.apply(ranks, pieces, False, tensor)


class _Exchange(torch.autograd.Function):
    """Both exchanges; the gradient of each is the other."""

    @staticmethod
    def forward(ctx: Any, ranks: Ranks, pieces: list[list[Piece]], to_heads: bool, tensor: Tensor) -> Tensor:
        ctx.ranks, ctx.pieces, ctx.to_heads = ranks, pieces, to_heads
        return (_scatter_heads if to_heads else _gather_heads)(ranks, pieces, tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return None, None, None, (_gather_heads if ctx.to_heads else _scatter_heads)(ctx.ranks, ctx.pieces, grad)


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
