"""Timing two or more ways to compute the same thing, with ratios that are reliable on a shared machine."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from clearhead.kernels.native import kernel as native

Way = Callable[[], Any]


@dataclass(frozen=True)
class Timing:
    """Seconds per call, over all rounds.

    Attributes:
        median, best: of the rounds.
        spread: the interquartile range as a share of the median.
    """

    median: float
    best: float
    spread: float


def interleaved(ways: dict[str, Way], seconds: float, rounds: int = 7) -> dict[str, Timing]:
    """Time each way in turn, round after round: A B A B. Other load then affects all of them alike.

    Args:
        seconds: about how long everything together may take.
    """
    calls = {}
    for name, way in ways.items():
        way()  # warm: pages, caches, threads
        start = time.perf_counter()
        way()
        once = time.perf_counter() - start
        calls[name] = max(1, int(seconds / (rounds * len(ways)) / max(once, 1e-7)))
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                way()
            taken[name].append((time.perf_counter() - start) / calls[name])
    return {name: _timing(sorted(times)) for name, times in taken.items()}


def _timing(times: list[float]) -> Timing:
    middle = median(times)
    return Timing(middle, times[0], (times[len(times) * 3 // 4] - times[len(times) // 4]) / middle)


@contextmanager
def undisturbed(wanted: bool) -> Iterator[None]:
    """Give this process's threads real-time priority inside the block if `wanted`, so that other work waits.

    Use it for seconds only: nothing else runs on those cores meanwhile. Linux only; needs root.
    """
    if wanted:
        _schedule(os.SCHED_RR, 10)
    try:
        yield
    finally:
        if wanted:
            _schedule(os.SCHED_OTHER, 0)


def _schedule(policy: int, priority: int) -> None:
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setscheduler(int(task.name), policy, os.sched_param(priority))
        except ProcessLookupError:  # the thread has ended
            continue


def peak() -> float:
    """The machine's float32 multiply-add peak on torch's threads, in operations per second: the best of many tries."""
    best = 0.0
    for _ in range(20):
        start = time.perf_counter()
        done = native.peak()
        best = max(best, done / (time.perf_counter() - start))
    return best


def agree(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, relative to the largest entry. It is computed outside the timed region."""
    truth = theirs.double()
    return ((ours.double() - truth).abs().max() / truth.abs().max().clamp(min=1e-30)).item()
