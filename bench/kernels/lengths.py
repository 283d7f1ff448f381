"""Time and memory of one head against sequence length, compared with torch's SDPA and with eager attention.

Eager attention stores the matrix. `make bench ARGS=--lengths` writes the table and `lengths.png`, which is also the
picture in docs/pictures.
"""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor

from bench.harness import memory
from bench.harness.report import machine
from bench.kernels.attention import eager
from clearhead import kernels
from clearhead.kernels import Problem

LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
WIDTH = 64
_PAGE = 4096  # bytes: less cannot be measured, and 0 cannot be drawn on a logarithmic axis
EAGER_SHARE = 0.35  # the share of free memory that eager's three matrices may take


@dataclass(frozen=True)
class Point:
    """One call: seconds, and bytes of memory beyond its inputs and output, None if not measured."""

    way: str
    length: int
    seconds: float
    memory: int | None


def run(out: Path) -> int:
    """Measure everything, print the table, and write it and the picture. Ctrl-C keeps what was measured."""
    plan = [(length, way) for length in LENGTHS for way in WAYS if way != "eager" or _eager_fits(length)]
    points: list[Point] = []
    try:
        for length, way in track(plan, description="measuring", console=Console(stderr=True)):
            points.append(_in_a_child(way, length))
    except KeyboardInterrupt:
        print(f"Stopped after {len(points)} of {len(plan)}.")
    text = table(points)
    (out / "lengths.md").write_text(text)
    found = [vars(point) for point in points]
    (out / "lengths.json").write_text(json.dumps({"machine": machine(0), "points": found}, indent=1) + "\n")
    print(text)
    print(f"Written to {out}/lengths.md, lengths.json" + (" and lengths.png." if picture(points, out) else "."))
    return 0 if len(points) == len(plan) else 1


def table(points: list[Point]) -> str:
    """Markdown: a row per length, with the time and memory of each way."""
    ways = list(WAYS)
    head = "".join(f" {way}, ms | {way}, MB |" for way in ways)
    lines = [f"| L |{head}", "|---|" + "---|---|" * len(ways)]
    for length in sorted({point.length for point in points}):
        here = {point.way: point for point in points if point.length == length}
        cells = [_cells(here.get(way)) for way in ways]
        lines.append(f"| {length:,} |" + "".join(cells))
    return "\n".join(lines) + "\n"


def _cells(point: Point | None) -> str:
    if point is None:
        return " too large | – |"
    size = "not measured" if point.memory is None else f"{point.memory / 1e6:.1f}"
    return f" {point.seconds * 1e3:.3g} | {size} |"


def picture(points: list[Point], out: Path) -> bool:
    """Plot both against length; False if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(9, 3.6), dpi=160, layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    marks = {"Clearhead": ("#0a3e6e", "o"), "SDPA": ("#00695c", "s"), "eager": ("#a8430b", "^")}
    for way, (colour, mark) in marks.items():
        here = [point for point in points if point.way == way]
        lengths = [point.length for point in here]
        left.plot(lengths, [point.seconds for point in here], color=colour, marker=mark, label=way, markersize=4)
        known = [(point.length, max(point.memory, _PAGE) / 1e6) for point in here if point.memory is not None]
        right.plot(*zip(*known, strict=True) if known else ([], []), color=colour, marker=mark, label=way, markersize=4)
    for axis, title in ((left, "Time of a call, seconds"), (right, "Memory beyond inputs and output, MB")):
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(LENGTHS, [f"{length // 1024}k" for length in LENGTHS])
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel("L, queries and keys")
        axis.grid(color="#d9d3c7", linewidth=0.5)
        axis.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    figure.savefig(out / "lengths.png")
    return True


def _ours(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return kernels.run(Problem(query, key, value, WIDTH**-0.5), kernel="native").out


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "Clearhead": _ours,
    "SDPA": F.scaled_dot_product_attention,
    "eager": eager,
}


def _in_a_child(way: str, length: int) -> Point:
    """Measure in a new process: an old one could reuse memory it had freed but kept, which would not be counted."""
    command = [sys.executable, "-m", "bench.kernels.lengths", way, str(length)]
    pinned = {"OMP_PROC_BIND": "true", **os.environ}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=pinned)
    return Point(**json.loads(done.stdout))


def _measured(way: str, length: int) -> Point:
    make = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 1, length, WIDTH, generator=make) for _ in range(3))
    function = WAYS[way]
    function(*(x[:, :, :64] for x in (query, key, value)))  # so that one-time loading is not measured
    seconds, sizes = [], []
    for _ in range(1 if length > 16384 else 5):
        gc.collect()
        before = memory.reset_peak()
        start = time.perf_counter()
        out = function(query, key, value)
        seconds.append(time.perf_counter() - start)
        if before is not None:
            sizes.append(max(0, memory.peak() - before - out.nbytes))
        del out
    return Point(way, length, min(seconds), max(sizes, default=None))


def _eager_fits(length: int) -> bool:
    free = memory.listed(Path("/proc/meminfo"), "MemAvailable") or 4 << 30
    return 3 * 4 * length * length < EAGER_SHARE * free


if __name__ == "__main__":
    print(json.dumps(vars(_measured(sys.argv[1], int(sys.argv[2])))))
