"""The products A @ X and Aᵀ @ Y of a sharded matrix, differentiable in X and Y: the gradient of each is the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clearhead.distributed.comparing import Steps
from clearhead.distributed.exchange import KEY_GRADIENTS, VALUES, around
from clearhead.kernels.autograd import first_derivative_only

if TYPE_CHECKING:
    from clearhead.distributed.matrix import ShardedAttentionMatrix


def times(matrix: ShardedAttentionMatrix, columns: Tensor) -> Tensor:
    """Return A @ X for this rank's rows, (B, H, L_r, W).

    Args:
        columns: (B or 1, H or 1, S_r, W), this rank's part of X.
    """
    return _Product.apply(matrix, False, columns)


def transposed_times(matrix: ShardedAttentionMatrix, columns: Tensor) -> Tensor:
    """Return Aᵀ @ Y for this rank's keys, (B, H, S_r, W).

    Args:
        columns: (B or 1, H or 1, L_r, W), this rank's part of Y.
    """
    return _Product.apply(matrix, True, columns)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: ShardedAttentionMatrix, transposed: bool, columns: Tensor) -> Tensor:
        ctx.matrix, ctx.transposed = matrix, transposed
        ctx.shape, ctx.dtype = columns.shape, columns.dtype
        return _multiplied(matrix, transposed, columns)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        ctx.matrix._agree("backward of A.mT @ Y" if ctx.transposed else "backward of A @ X")
        whole = _multiplied(ctx.matrix, not ctx.transposed, grad)
        return None, None, whole.sum_to_size(ctx.shape).to(ctx.dtype)


def _multiplied(matrix: ShardedAttentionMatrix, transposed: bool, columns: Tensor) -> Tensor:
    return _transposed_times(matrix, columns) if transposed else _times(matrix, columns)


def _times(matrix: ShardedAttentionMatrix, columns: Tensor) -> Tensor:
    """Send keys and columns around the ring; each rank adds up its rows."""
    call, batch, heads = matrix._call, *matrix.shape[:2]

    def add(owner: int, key: Tensor, travelling: Tensor) -> None:
        for part in matrix._of(owner, key):
            out[:, :, part.rows] += part.matrix @ travelling[:, :, part.keys]

    with Steps(call.ranks, "A @ X", matrix.device) as steps:
        out = matrix._zeros((batch, heads, matrix._query.shape[2], columns.shape[-1]))
        own = columns.expand(batch, -1, -1, -1).contiguous()
        held = [call.held(call.key_pieces, owner) for owner in range(call.ranks.size)]
        values = around(call.ranks, own, [(batch, own.shape[1], each, own.shape[-1]) for each in held], VALUES)
        for (owner, key), (_, travelling) in zip(matrix._keys(), values, strict=True):
            steps(add, owner, key, travelling)
    return out.to(torch.promote_types(matrix.dtype, columns.dtype))


def _transposed_times(matrix: ShardedAttentionMatrix, columns: Tensor) -> Tensor:
    """Send keys around the ring, and the sums of their columns one step behind, which end at their owner."""
    call, ranks, (batch, heads) = matrix._call, matrix._call.ranks, matrix.shape[:2]
    width = columns.shape[-1]
    columns = columns.expand(batch, heads, *columns.shape[-2:])

    def add(own: Tensor, owner: int, key: Tensor) -> None:
        for part in matrix._of(owner, key):
            own[:, :, part.keys] += part.matrix.mT @ columns[:, :, part.rows]

    with Steps(ranks, "A.mT @ Y", matrix.device) as steps:
        behind = transfer = None
        for owner, key in matrix._keys():
            own = matrix._zeros((batch, heads, key.shape[2], width))
            steps(add, own, owner, key)
            if transfer is not None and behind is not None:
                transfer.wait()
                own += behind
            if ranks.size > 1:
                following = call.held(call.key_pieces, (owner - 1) % ranks.size)
                behind = own.new_empty(batch, heads, following, width)
                transfer = ranks.start(ranks.rank + 1, own, ranks.rank - 1, behind, KEY_GRADIENTS)
        if transfer is not None and behind is not None:
            transfer.wait()
            own = behind
    return own
