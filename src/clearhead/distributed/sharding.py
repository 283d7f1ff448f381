"""Shard a tensor over the ranks, and gather it again."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from clearhead.arguments import refuse_unreadable
from clearhead.distributed.comparing import device_of, raise_where_refused
from clearhead.distributed.exchange import Ranks
from clearhead.distributed.placement import CONTIGUOUS, ZIGZAG, check, pieces, positions, split_evenly
from clearhead.errors import RanksError, ShapeError


def shard(tensor: Tensor, dim: int = -2, *, mesh: Any = None, placement: str = CONTIGUOUS) -> Tensor:
    """Return this rank's part of a tensor that every rank has whole. Gradients flow.

    Args:
        tensor: any shape.
        dim: its sequence axis; -2 for (B, H, L, D).
        mesh, placement: as in `clearhead.distributed.attention`.
    Raises:
        ShapeError: zigzag needs a multiple of twice the number of ranks.
    """
    ranks = Ranks.of(mesh)
    where = positions(pieces(placement, _lengths(tensor.shape[dim], ranks, placement))[ranks.rank])
    return tensor.index_select(dim, where.to(tensor.device))


def gather(tensor: Tensor, dim: int = -2, *, mesh: Any = None, placement: str = CONTIGUOUS) -> Tensor:
    """Return the whole tensor on every rank, in the order of positions, without gradients. Memory: the whole tensor.

    Raises:
        RanksError: the tensors of the ranks differ in more than their length.
    """
    ranks = Ranks.of(mesh)
    report = [0, 0, 0]
    try:
        refuse_unreadable(tensor=tensor)
        check(placement)
        own = tensor.detach().movedim(dim, 0).contiguous()
        same = f"{tuple(own.shape[1:])} {own.dtype} {placement}"
        report = [1, own.shape[0], crc32(same.encode())]
    finally:
        reports = ranks.gather_numbers("gather", report, device_of(tensor))
    raise_where_refused([ok for ok, *_ in reports])
    for rank, (*_, other) in enumerate(reports):
        if other != report[2]:
            raise RanksError(
                f"rank {rank} gathers a tensor of another shape, dtype or placement than this rank, whose tensor is "
                f"{own.dtype} with {tuple(own.shape[1:])} besides its sequence axis. Gather the parts of one tensor."
            )
    lengths = [length for _, length, _ in reports]
    parts = ranks.gather(own, [(length, *own.shape[1:]) for length in lengths])
    where = torch.cat([positions(part) for part in pieces(placement, lengths)]).to(own.device)
    whole = torch.cat(parts)
    return torch.empty_like(whole).index_copy_(0, where, whole).movedim(0, dim)


def _lengths(length: int, ranks: Ranks, placement: str) -> list[int]:
    if placement == ZIGZAG and length % (2 * ranks.size):
        raise ShapeError(
            f"the sequence has {length} positions; zigzag over {ranks.size} ranks needs a multiple of "
            f"{2 * ranks.size}. Pad it, or use placement='contiguous'."
        )
    return split_evenly(length, ranks.size)
