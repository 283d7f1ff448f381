"""Begin the backward pass of a call on all ranks together: ranks that differ raise an error instead of waiting."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from clearhead.distributed.exchange import Ranks
from clearhead.errors import RanksError
from clearhead.kernels import Result


def joined(ranks: Ranks, number: int, result: Result) -> Result:
    """Return a result whose backward pass first compares ranks: each must be in the backward pass of this call.

    A gradient of out or lse that some rank has is zeros on the others, so that all ranks send the same tensors.

    Args:
        number: the number of the call, equal on all ranks.
    """
    if not (result.out.requires_grad or result.lse.requires_grad):
        return result
    return Result(*_Joined.apply(ranks, number, result.out, result.lse))


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ranks: Ranks, number: int, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
        ctx.ranks, ctx.number = ranks, number
        ctx.like = [(tensor.shape, tensor.dtype, tensor.device) for tensor in (out, lse)]
        ctx.set_materialize_grads(False)
        return out.view_as(out), lse.view_as(lse)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        own = [ctx.number, *(int(grad is not None) for grad in grads)]
        rows = ctx.ranks.gather_numbers("backward of attention", own, ctx.like[0][2])
        for rank, (number, *_) in enumerate(rows):
            if number != ctx.number:
                raise RanksError(
                    f"this rank computes the backward pass of call {ctx.number} of distributed.attention, but rank "
                    f"{rank} that of call {number}. Call backward in the same order on every rank."
                )
        for place, (shape, dtype, device) in enumerate(ctx.like):
            if grads[place] is None and any(row[place + 1] for row in rows):
                zeros = torch.zeros(shape, dtype=dtype, device=device)
                grads = (*grads[:place], zeros, *grads[place + 1 :])
        return None, None, *grads
