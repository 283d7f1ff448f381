"""Shard a tensor over the ranks, and gather it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from zlib import crc32

import torch
from torch import Tensor

from clearhead.arguments import refuse_unreadable
from clearhead.distributed.comparing import MODEL, Steps, device_of, raise_where_refused
from clearhead.distributed.exchange import Ranks
from clearhead.distributed.placement import CONTIGUOUS, ZIGZAG, Piece, check, pieces, positions, split_evenly
from clearhead.errors import OptionError, RanksError, ShapeError


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
    places = pieces(placement, lengths)  # refused on every rank or on none
    with Steps(ranks, "gather", own.device) as steps:
        parts = ranks.gather(own, [(length, *own.shape[1:]) for length in lengths])
        whole = steps(_in_order, parts, places)
    return cast(Tensor, whole).movedim(0, dim)


def _in_order(parts: Sequence[Tensor], places: Sequence[Sequence[Piece]]) -> Tensor:
    """Return the rows of all ranks in the order of their positions."""
    whole = torch.cat(list(parts))
    where = torch.cat([positions(place) for place in places]).to(whole.device)
    return torch.empty_like(whole).index_copy_(0, where, whole)


def check_positions(given: Tensor | None, query: Tensor, mesh: Any, placement: str) -> None:
    """Check that the positions a model was called with are those that the placement gives each rank.

    Args:
        given: (..., L_r), integers; None = the model was called without, and counts from 0.
        query: (B, H, L_r, D).
        mesh, placement: as in `clearhead.distributed.attention`.
    Raises:
        OptionError: on every rank, if those of one rank are others.
    """
    ranks = Ranks.of(mesh)
    report = [0] * 5
    try:
        report = [1, *_runs(given, query.shape[2], placement)]
    finally:
        reports = ranks.gather_numbers(MODEL, report, query.device)
    raise_where_refused([ok for ok, *_ in reports])
    for rank, own in enumerate(pieces(placement, [length for _, length, *_ in reports])):
        _, length, consecutive, *begins = reports[rank]
        half = length // 2 if placement == ZIGZAG else length
        where = positions(own)
        wanted = [int(where[place]) if place < length else -1 for place in (0, half)]
        if length and not (consecutive and begins == wanted):
            shown = " and ".join(f"{part.positions.start}..{part.positions.stop - 1}" for part in own)
            raise OptionError(
                f"rank {rank} calls the model with other position_ids than placement={placement!r} gives it, {shown}. "
                f"Pass position_ids=clearhead.distributed.shard(torch.arange(L)[None], 1, placement={placement!r}), "
                "of the whole sequence; packed documents are not supported here."
            )


def _runs(given: Tensor | None, length: int, placement: str) -> list[int]:
    """Return how many positions a rank has, whether they are one run or the two of zigzag, and where these begin."""
    rows = (torch.arange(length)[None] if given is None else given.detach().cpu()).reshape(-1, max(length, 1))
    half = length // 2 if placement == ZIGZAG else length
    runs = rows[:, :half], rows[:, half:]
    steady = all(bool((run.diff(dim=1) == 1).all()) and bool((run == run[:1]).all()) for run in runs)
    return [length, steady, *(int(run[0, 0]) if run.numel() else -1 for run in runs)]


def _lengths(length: int, ranks: Ranks, placement: str) -> list[int]:
    if placement == ZIGZAG and length % (2 * ranks.size):
        raise ShapeError(
            f"the sequence has {length} positions; zigzag over {ranks.size} ranks needs a multiple of "
            f"{2 * ranks.size}. Pad it, or use placement='contiguous'."
        )
    return split_evenly(length, ranks.size)
