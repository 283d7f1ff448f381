"""The pieces of work that are measured, in order."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.harness.measure import Way

SHAPES = ((1, 8, 512, 64), (1, 8, 2048, 64), (1, 8, 4096, 64), (8, 8, 128, 64), (1, 8, 2048, 128))
QUICK = ((1, 8, 512, 64), (8, 8, 128, 64))
# How much ours and the nearest peer may differ, as a share of the largest entry. A bfloat16 number has 8 bits of
# precision, and both round in several places.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


@dataclass(frozen=True)
class Work:
    """One row of the table for each peer.

    Attributes:
        group: the rows that share a geometric mean.
        shape: a description for the table.
        flops: useful floating-point operations; half as many if causal.
        make: returns the ways by name, "ours" first; or instead of a way the reason why it cannot be measured here.
            Each way returns the tensor it is checked by, or None if it computes something else.
        exact: returns the same tensor computed in float64; None if that would take too long or nothing is checked.
    """

    group: str
    shape: str
    flops: float
    dtype: torch.dtype
    make: Callable[[], Mapping[str, Way | str]]
    exact: Callable[[], Tensor] | None = None


def all_work(quick: bool) -> Iterator[Work]:
    """Every piece of work; with `quick` only small ones that take a second each."""
    from bench.kernels import attention, peers, statistics
    from bench.multihead import accelerated, layers

    yield from attention.work(quick)
    yield from statistics.work(quick)
    yield from layers.work(quick)
    yield from accelerated.work(quick)
    yield from peers.work(quick)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def inputs(shape: tuple[int, ...], dtype: torch.dtype, keys: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, (B, H, L, D), the same on every call."""
    make = torch.Generator().manual_seed(0)
    batch, heads, length, width = shape
    sizes = (length, keys or length, keys or length)
    query, key, value = (torch.randn(batch, heads, n, width, generator=make).to(dtype) for n in sizes)
    return query, key, value
