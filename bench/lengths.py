"""Time and memory against sequence length, beside eager attention, which stores the L×S matrix."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from clearhead import kernels
from clearhead.kernels import Problem

LENGTHS = (1024, 4096, 16384, 65536)
EAGER_LIMIT = 1 << 30  # bytes of one L×S matrix; eager holds about three


def table(lengths: tuple[int, ...] = LENGTHS, width: int = 64) -> str:
    """Markdown: milliseconds and megabytes beyond the inputs, one head, ours and eager."""
    lines = ["", "| L | ours, ms | ours, MB | eager, ms | eager, MB |", "|---|---|---|---|---|"]
    for length in lengths:
        make = torch.Generator().manual_seed(0)
        query, key, value = (torch.randn(1, 1, length, width, generator=make) for _ in range(3))
        problem = Problem(query, key, value, width**-0.5)
        ours = _once(lambda p=problem: kernels.run(p, kernel="native").out)
        theirs = "–", "–"
        if 4 * length * length <= EAGER_LIMIT:
            theirs = _once(lambda q=query, k=key, v=value: _eager(q, k, v))
        lines.append(f"| {length} | {ours[0]} | {ours[1]} | {theirs[0]} | {theirs[1]} |")
    return "\n".join(lines) + "\n"


def _eager(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.softmax(query @ key.mT * query.shape[-1] ** -0.5, dim=-1) @ value


def _once(way: Callable[[], Tensor]) -> tuple[str, str]:
    """Milliseconds of one call, and how far it raised the process's most resident memory, in megabytes."""
    before = _reset_high_water()
    start = time.perf_counter()
    way()
    taken = time.perf_counter() - start
    grown = "not measured" if before is None else f"{(_high_water() - before) / 1e6:.0f}"
    return f"{taken * 1e3:.0f}", grown


def _reset_high_water() -> int | None:
    if sys.platform != "linux":
        return None
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _high_water()


def _high_water() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
