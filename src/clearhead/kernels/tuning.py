"""Measure the costs of our kernels and torch's on this machine, for `clearhead tune`."""

import math
from collections.abc import Callable
from itertools import combinations
from time import perf_counter as clock
from typing import Any

import torch
import torch.nn.functional as F

from clearhead.kernels import fast_path, projection
from clearhead.kernels.measured.tasks import DTYPES, GRADIENT_TASKS, LINEAR, LINEAR_FEW, TASKS, Cost, Costs, share
from clearhead.kernels.native.cpu_targets import current
from clearhead.kernels.portable.torch_sdpa import flash_runs, torchs_own

WIDTH, OUTPUTS = 64, 512
# Heads, queries and keys of each measurement: few and many of each, so that the parts of a cost can be separated.
SIZES = {
    "one query": ((8, 1, 1), (48, 1, 16), (8, 1, 512), (8, 1, 4096)),
    "few queries": ((8, 3, 3), (48, 5, 5), (8, 8, 8), (48, 7, 7), (8, 4, 64)),
    "few queries, many keys": ((8, 2, 256), (48, 5, 128), (8, 8, 1024)),
    "short": ((8, 13, 13), (48, 16, 16), (48, 9, 9), (8, 16, 64)),
    "short, many keys": ((8, 13, 128), (48, 13, 128), (8, 16, 512)),
    "forward": ((8, 31, 31), (48, 31, 31), (8, 128, 128), (48, 67, 67), (8, 512, 512)),
    "one query, gradients": ((8, 1, 1), (48, 1, 1), (8, 1, 64), (8, 1, 512)),
    "few queries, gradients": ((8, 3, 3), (48, 5, 5), (8, 8, 8), (8, 8, 128)),
    "short, gradients": ((8, 13, 13), (48, 13, 13), (8, 16, 16), (8, 16, 256)),
    "gradients": ((8, 20, 20), (48, 31, 31), (8, 64, 64), (8, 128, 128), (8, 512, 512)),
    LINEAR: ((0, 4, 0), (0, 16, 0), (0, 256, 0)),  # rows
    LINEAR_FEW: ((0, 1, 0), (0, 2, 0), (0, 3, 0)),
}
ROUNDS = 5
Progress = Callable[[int, int], None]


def todo() -> list[tuple[str, torch.dtype]]:
    """Return the tasks to measure, each in every dtype that both kernels compute."""
    return [(task, dtype) for task in TASKS for dtype in _dtypes(task)]


def measure(seconds: float = 45.0, progress: Progress | None = None) -> Costs:
    """Time every task in every dtype, alternating between our kernel and torch's, within `seconds` in total.

    Each measurement gets an equal share of the remaining time, and none starts after the end: a task that is not
    reached has no costs. Only a running call may exceed the time.

    Args:
        progress: called with the number of tasks done, and their total number.
    """
    end = clock() + seconds
    tasks = todo()
    left = sum(len(SIZES[task]) for task, _ in tasks)
    measured: Costs = {}
    for done, (task, dtype) in enumerate(tasks):
        if progress is not None:
            progress(done, len(tasks))
        points: tuple[list[tuple[int, float, float]], ...] = ([], [])
        for size in SIZES[task]:
            ours, torchs, part = _calls(task, dtype, *size)
            now = clock()
            if now >= end:
                return measured
            with torchs_own():
                best = _best(ours, torchs, (end - now) / left)
            left -= 1
            for line, microseconds in zip(points, best, strict=True):
                line.append((*part, microseconds))
        measured[task, dtype] = fit(points[0]), fit(points[1])
    return measured


def _dtypes(task: str) -> list[torch.dtype]:
    dtypes = [dtype for dtype in DTYPES.values() if current(dtype)[0] is not None]
    if task in (LINEAR, LINEAR_FEW):
        return [dtype for dtype in dtypes if dtype is not torch.float64]
    return [dtype for dtype in dtypes if flash_runs(dtype)]  # the plan never chooses torch's operator where it raises


def _calls(
    task: str, dtype: torch.dtype, heads: int, length: int, keys: int
) -> tuple[Callable[[], Any], Callable[[], Any], tuple[int, float]]:
    """Return our call and torch's for a task, and how many heads and multiply-adds a thread computes."""
    threads = torch.get_num_threads()
    if task in (LINEAR, LINEAR_FEW):
        x, weight = torch.randn(length, OUTPUTS, dtype=dtype), torch.randn(OUTPUTS, OUTPUTS, dtype=dtype)
        part = 0, length * OUTPUTS**2 / threads
        return (lambda: projection.natively(x, weight, None)), (lambda: F.linear(x, weight)), part
    query = torch.randn(1, heads, length, WIDTH, dtype=dtype)
    key, value = torch.randn(2, 1, heads, keys, WIDTH, dtype=dtype)
    call = (query, key, value, False, WIDTH**-0.5)
    part = share(heads, length, keys, WIDTH, threads)
    if task not in GRADIENT_TASKS:
        return (lambda: fast_path.native_forward(*call)), (lambda: fast_path.torch_flash(*call)), part
    leaves = [tensor.requires_grad_() for tensor in (query, key.clone(), value.clone())]
    upstream = torch.randn(query.shape, dtype=dtype)

    def trained(compute: Callable[..., torch.Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(compute(*leaves, False, WIDTH**-0.5), leaves, upstream)

    return trained(fast_path.native_with_gradients), trained(fast_path.torch_flash), part


def _best(ours: Callable[[], Any], torchs: Callable[[], Any], seconds: float) -> tuple[float, float]:
    """Return the shortest time of each over several rounds, in µs per call; alternating, so that load hits both."""
    end = clock() + seconds
    best, counts = [], []
    for call in (ours, torchs):
        call()  # warm up pages, caches, threads
        start = clock()
        call()
        once = max(clock() - start, 1e-6)
        best.append(once)
        counts.append(max(1, int(seconds / (2 * ROUNDS) / once)))
    for _ in range(ROUNDS):
        if clock() >= end:
            break  # the calls are long, or the machine is busy
        for i, call in enumerate((ours, torchs)):
            start = clock()
            for _ in range(counts[i]):
                call()
            best[i] = min(best[i], (clock() - start) / counts[i])
    return best[0] * 1e6, best[1] * 1e6


def fit(points: list[tuple[int, float, float]]) -> Cost:
    """Return the cost closest to points (heads, multiply-adds, microseconds) by relative error, without negative parts.

    >>> fit([(4, 1e6, 14.0), (4, 2e6, 24.0), (24, 2e6, 34.0), (4, 9e6, 94.0)])
    Cost(call=2.0, head=0.5, work=10.0)
    """
    took = torch.tensor([microseconds for *_, microseconds in points], dtype=torch.float64)
    parts = torch.tensor([(1.0, heads, work / 1e6) for heads, work, _ in points], dtype=torch.float64) / took[:, None]
    best, least = torch.zeros(3, dtype=torch.float64), math.inf
    for size in (1, 2, 3):  # try every subset of the parts, and skip solutions with a negative part
        for kept in map(list, combinations(range(3), size)):
            solved = torch.linalg.lstsq(parts[:, kept], torch.ones_like(took)[:, None], driver="gelsd").solution[:, 0]
            error = float((parts[:, kept] @ solved - 1).norm())
            if solved.min() >= 0 and error < least - 1e-9:
                best, least = torch.zeros(3, dtype=torch.float64), error
                best[kept] = solved
    call, head, work = best.tolist()
    return Cost(round(call, 3), round(head, 3), round(work, 3))
