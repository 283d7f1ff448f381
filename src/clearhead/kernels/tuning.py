"""Measure what our kernels and torch's cost on this machine, for `clearhead tune`."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from clearhead.kernels import fast_path, projection
from clearhead.kernels.measured.figures import DECODE, DTYPES, FORWARD, LINEAR, TASKS, TRAINING, Cost, Costs
from clearhead.kernels.native.cpu_targets import current
from clearhead.kernels.portable.torch_sdpa import torchs_own

HEADS, WIDTH, OUTPUTS = 8, 64, 512
SIZES = {DECODE: (64, 1024, 8192), FORWARD: (16, 128, 512), TRAINING: (16, 128, 512), LINEAR: (1, 16, 256)}
ROUNDS = 5
Progress = Callable[[int, int], None]


def measure(seconds: float = 45.0, progress: Progress | None = None) -> Costs:
    """Time every task of every dtype on our kernel and on torch's, in turn, for about so many seconds in all.

    Args:
        progress: called with how many tasks are done, and of how many.
    """
    todo = [(task, dtype) for task in TASKS for dtype in _dtypes(task)]
    measured: Costs = {}
    for done, (task, dtype) in enumerate(todo):
        if progress is not None:
            progress(done, len(todo))
        points: tuple[list[tuple[float, float]], ...] = ([], [])
        for size in SIZES[task]:
            ours, torchs, work = _ways(task, dtype, size)
            with torchs_own():
                best = _best(ours, torchs, seconds / len(todo) / len(SIZES[task]))
            for line, microseconds in zip(points, best, strict=True):
                line.append((work, microseconds))
        measured[task, dtype] = fit(points[0]), fit(points[1])
    return measured


def _dtypes(task: str) -> list[torch.dtype]:
    dtypes = [dtype for dtype in DTYPES.values() if current(dtype)[0] is not None]
    return [dtype for dtype in dtypes if task != LINEAR or dtype is not torch.float64]


def _ways(task: str, dtype: torch.dtype, size: int) -> tuple[Callable[[], Any], Callable[[], Any], float]:
    """Ours and torch's of a task, and how many multiply-adds it takes."""
    if task == LINEAR:
        x, weight = torch.randn(size, OUTPUTS, dtype=dtype), torch.randn(OUTPUTS, OUTPUTS, dtype=dtype)
        return (lambda: projection.natively(x, weight, None)), (lambda: F.linear(x, weight)), size * OUTPUTS**2
    length, keys = (1, size) if task == DECODE else (size, size)
    query = torch.randn(1, HEADS, length, WIDTH, dtype=dtype)
    key, value = torch.randn(2, 1, HEADS, keys, WIDTH, dtype=dtype)
    call = (query, key, value, False, WIDTH**-0.5)
    work = HEADS * length * keys * 2 * WIDTH
    if task != TRAINING:
        return (lambda: fast_path.native_forward(*call)), (lambda: fast_path.torch_flash(*call)), work
    leaves = [tensor.requires_grad_() for tensor in (query, key.clone(), value.clone())]
    upstream = torch.randn(query.shape, dtype=dtype)

    def trained(compute: Callable[..., torch.Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(compute(*leaves, False, WIDTH**-0.5), leaves, upstream)

    return trained(fast_path.native_with_gradients), trained(fast_path.torch_flash), work


def _best(ours: Callable[[], Any], torchs: Callable[[], Any], seconds: float) -> tuple[float, float]:
    """The shortest of some rounds of each, in microseconds a call. In turn: what else the machine does hits both."""
    counts = []
    for way in (ours, torchs):
        way()  # pages, caches, threads
        start = time.perf_counter()
        way()
        once = max(time.perf_counter() - start, 1e-6)
        counts.append(max(1, int(seconds / (2 * ROUNDS) / once)))
    best = [math.inf, math.inf]
    end = time.perf_counter() + 1.5 * seconds
    for number in range(ROUNDS):
        if number >= 2 and time.perf_counter() > end:
            break  # something else takes the machine
        for i, way in enumerate((ours, torchs)):
            start = time.perf_counter()
            for _ in range(counts[i]):
                way()
            best[i] = min(best[i], (time.perf_counter() - start) / counts[i] * 1e6)
    return best[0], best[1]


def fit(points: list[tuple[float, float]]) -> Cost:
    """The line through (multiply-adds, microseconds) whose relative errors are least; neither of its parts negative.

    >>> fit([(1e6, 12.0), (2e6, 22.0), (9e6, 92.0)])
    Cost(call=2.0, work=10.0)
    """
    rows = [(1 / y, x / 1e6 / y) for x, y in points]  # a/y + b x/y = 1
    aa, ab, bb = (sum(r[i] * r[j] for r in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    a, b = sum(r[0] for r in rows), sum(r[1] for r in rows)
    determinant = aa * bb - ab * ab
    call, work = (a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant
    if call < 0:
        call, work = 0.0, b / bb
    elif work < 0:
        call, work = a / aa, 0.0
    return Cost(round(call, 3), round(work, 4))
