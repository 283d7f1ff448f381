"""Where torch's own function is faster than our kernel: measured costs of this machine, or safe rules for its CPU.

A cost is a straight line, so many microseconds a call and so many a million multiply-adds. Two lines cross once: torch
is taken on the side of the crossing where it is faster by more than MARGIN. `clearhead tune` measures the lines
(tuning.py); without its figures the rules of the CPU's class decide.
"""

import math
from functools import cache
from typing import NamedTuple

import torch

from clearhead.kernels.measured import figures
from clearhead.kernels.measured.figures import DECODE, FORWARD, TRAINING, Cost
from clearhead.kernels.native.cpu_targets import Target, current, is_forced
from clearhead.kernels.native.library import cpu_features

FEW_QUERIES = 8  # up to so many the native kernel reads keys once for all of them (kFewQueries, native/arguments.h)
MARGIN = 1.1  # a difference of a tenth is within what two measurements differ by


class Range(NamedTuple):
    """The multiply-adds, low <= n < high, for which torch is faster, and why."""

    low: float
    high: float
    reason: str

    def holds(self, multiply_adds: float) -> bool:
        return self.low <= multiply_adds < self.high


NEVER = Range(math.inf, math.inf, "")


def where_torch_is_faster(ours: Cost, torchs: Cost, reason: str) -> Range:
    """The side of the crossing where torch's line is under ours by more than MARGIN.

    >>> where_torch_is_faster(Cost(2, 66), Cost(10, 20), "")[:2]
    (204545.4..., inf)
    >>> where_torch_is_faster(Cost(2, 20), Cost(10, 60), "") == NEVER
    True
    """
    call, work = MARGIN * torchs.call - ours.call, MARGIN * torchs.work - ours.work
    if work == 0:
        return Range(0, math.inf, reason) if call < 0 else NEVER
    crossing = -call / work * 1e6
    if work < 0:
        return Range(max(0.0, crossing), math.inf, reason)
    return Range(0, crossing, reason) if crossing > 0 else NEVER


def torch_is_faster(task: str, dtype: torch.dtype) -> Range:
    """For which sizes of a task torch is faster on this machine. A target that is forced is never passed over."""
    return NEVER if is_forced() else _measured_or_ruled(task, dtype)


def forget() -> None:
    """Read the measured figures anew at the next call."""
    figures.load.cache_clear()
    measured.cache_clear()
    _measured_or_ruled.cache_clear()


@cache
def _measured_or_ruled(task: str, dtype: torch.dtype) -> Range:
    by_figures = measured(task, dtype)
    return _rule(task, dtype) if by_figures is None else by_figures


@cache
def measured(task: str, dtype: torch.dtype) -> Range | None:
    """For which sizes torch is faster by the figures of `clearhead tune`; None where there are none."""
    lines = figures.load().costs.get((task, dtype))
    if lines is None:
        return None
    return where_torch_is_faster(*lines, "torch is faster at this size, as `clearhead tune` measured on this machine")


def _rule(task: str, dtype: torch.dtype) -> Range:
    target, _ = current(dtype)
    if target is None:
        return NEVER
    reason = _torch_has_more(target, dtype)
    if reason is not None and task in _ATTENTION:
        return Range(0, math.inf, reason)
    return NEVER


_ATTENTION = (DECODE, FORWARD, TRAINING)
# Instructions that multiply matrices of a dtype. A target that needs them has kernels of its own for it; against one
# that does not, torch is 3 to 4 times as fast (bfloat16 on a Xeon with AMX: bench/LOG.md).
MATRIX_INSTRUCTIONS = {torch.bfloat16: "amx-bf16"}


def _torch_has_more(target: Target, dtype: torch.dtype) -> str | None:
    """Which instructions of this CPU torch uses for a dtype and the target does not, in one line; None if none."""
    feature = MATRIX_INSTRUCTIONS.get(dtype)
    if feature is None or feature not in cpu_features() or feature in target.needs:
        return None
    return f"torch multiplies {str(dtype)[6:]} by this CPU's {feature}, which target {target.name} does not use"
