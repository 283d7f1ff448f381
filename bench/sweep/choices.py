"""Costs that choose the faster kernel for gradients of few tokens: `chrt -f 10 python -m bench.sweep.choices`.

Both kernels take about as long there, so a cost that is 5 µs wrong chooses wrongly, however well it fits. Each computes
the same shapes in turn; then the fitted costs of a task are changed until they choose the faster one. It prints rows
for kernels/measured/cpu_classes.py, after a minute. Torch's kernel may take 1.3 times as long in one process as in the
next: repeat it with the same --out, which keeps the fastest times. The machine must do nothing else: beside
other work torch's kernel takes up to twice as long, and ours does not.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rich.progress import track

from bench.sweep.costs import line
from clearhead.kernels.fast_path import native_with_gradients
from clearhead.kernels.measured.costs import LOOK, MARGIN
from clearhead.kernels.measured.tasks import DTYPES, TASKS, Cost, Costs, share, task_of
from clearhead.kernels.tuning import fit

KEYS = {
    1: (1, 8, 16, 64, 256, 1031, 4096), 5: (5, 16, 64, 256, 1031), 12: (12, 64, 300), 16: (16, 64, 300),
    24: (24,), 40: (40,), 64: (64,),
}  # fmt: skip
HEADS = (1, 2, 8, 48, 96)
WIDTH = 64
LARGEST = 96 * 1031  # heads times keys
LOOKING = 3.0  # what `attention` adds to a call that torch computes, in microseconds
STEPS = 6000


class Shape(NamedTuple):
    """A call with gradients: the dtype's name, heads, queries and keys."""

    dtype: str
    heads: int
    queries: int
    keys: int


class Times(NamedTuple):
    """The microseconds of both kernels, and the part of a thread that costs are counted by."""

    heads: int
    multiply_adds: float
    ours: float
    torch: float


def shapes() -> Iterator[Shape]:
    """Every shape that is measured, most alike first."""
    for dtype in DTYPES:
        for queries, several in KEYS.items():
            for keys in several:
                yield from (Shape(dtype, heads, queries, keys) for heads in HEADS if heads * keys <= LARGEST)


def measured(shape: Shape, seconds: float) -> tuple[float, float]:
    """The microseconds of forward and backward pass on ours and on torch's kernel, the fastest round of each."""
    dtype = DTYPES[shape.dtype]
    query, key, value = (
        torch.randn(1, shape.heads, length, WIDTH, dtype=dtype, requires_grad=True)
        for length in (shape.queries, shape.keys, shape.keys)
    )
    upstream = torch.randn_like(query)

    def gradients(out: torch.Tensor) -> None:
        torch.autograd.grad(out, (query, key, value), upstream)

    ours, torchs = fastest(
        [
            lambda: gradients(native_with_gradients(query, key, value, False, None)),
            lambda: gradients(F.scaled_dot_product_attention(query, key, value)),
        ],
        seconds,
    )
    return ours, torchs


def fastest(ways: list[Callable[[], None]], seconds: float) -> list[float]:
    """The microseconds of the fastest call of each way. One call of each in turn: behind itself Python is faster."""
    least, end, rounds = [math.inf] * len(ways), time.perf_counter() + seconds, 0
    while rounds < 5 or time.perf_counter() < end:
        rounds += 1
        for place, way in enumerate(ways):
            start = time.perf_counter()
            way()
            least[place] = min(least[place], time.perf_counter() - start)
    return [1e6 * taken for taken in least]


def regret(ours: Cost, torchs: Cost, points: list[Times]) -> float:
    """How much longer the calls take than on the faster kernel; three times as bad where they take longer than torch.

    >>> ours, torchs = Cost(0.0, 0.0, 0.0), Cost(9.0, 0.0, 0.0)
    >>> regret(ours, torchs, [Times(1, 1.0, ours=50.0, torch=60.0)])
    0.0
    """
    total = 0.0
    for point in points:
        at = point.heads, point.multiply_adds
        chooses_torch = ours.at(*at) - MARGIN * torchs.at(*at) - LOOK > 0
        through_ours = point.torch + LOOKING
        takes = through_ours if chooses_torch else point.ours
        excess = max(0.0, takes / min(point.ours, through_ours) - 1.02)
        total += excess**2 * (3 if not chooses_torch and takes > point.torch / 0.95 else 1)
    return total


def choosing(points: list[Times], steps: int = STEPS) -> tuple[Cost, Cost]:
    """The costs of ours and of torch's kernel, near their fit, that choose the faster one most often."""
    draw = random.Random(0)  # noqa: S311

    def near(cost: Cost) -> Cost:
        parts = cost.call + draw.gauss(0, 3), cost.head * draw.uniform(0.6, 1.5), cost.work * draw.uniform(0.85, 1.15)
        return Cost(*(float(f"{max(0.0, part):.3g}") for part in parts))

    ours = fit([(point.heads, point.multiply_adds, point.ours) for point in points])
    torchs = fit([(point.heads, point.multiply_adds, point.torch) for point in points])
    least = regret(ours, torchs, points)
    for _ in range(steps):
        if least == 0:
            break
        tried = near(ours), near(torchs)
        if (here := regret(*tried, points)) < least:
            (ours, torchs), least = tried, here
    return ours, torchs


def choices(times: dict[Shape, tuple[float, float]], threads: int) -> Costs:
    """The costs of every task and dtype that was measured."""
    points: dict[tuple[str, torch.dtype], list[Times]] = {}
    for shape, taken in times.items():
        key = task_of(shape.queries, shape.keys, learns=True), DTYPES[shape.dtype]
        part = share(shape.heads, shape.queries, shape.keys, WIDTH, threads)
        points.setdefault(key, []).append(Times(*part, *taken))
    return {key: choosing(here) for key, here in points.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sweep.choices", description=__doc__)
    parser.add_argument("--out", type=Path, help="keep the times here; of those that are there the fastest count")
    parser.add_argument("--seconds", type=float, default=0.1, help="how long to measure one shape (default 0.1)")
    options = parser.parse_args()
    times: dict[Shape, tuple[float, float]] = {}
    if options.out and options.out.exists():
        times = {Shape(*shape): (ours, torchs) for shape, ours, torchs in json.loads(options.out.read_text())}
    for shape in track(list(shapes()), "measuring"):
        now = measured(shape, options.seconds)
        before = times.get(shape, now)
        times[shape] = min(now[0], before[0]), min(now[1], before[1])
        if options.out:
            options.out.write_text(json.dumps([(shape, *taken) for shape, taken in times.items()]))
    found = choices(times, torch.get_num_threads())
    for key in sorted(found, key=lambda key: (TASKS.index(key[0]), str(key[1]))):
        print(line(key, found[key]))


if __name__ == "__main__":
    main()
