"""How much memory some work takes: of the process, by its own high-water mark, or of its tensors, as torch counts it."""

import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import pytest
import torch

CLEAR = Path("/proc/self/clear_refs")


def high_water() -> int:
    """The most resident memory since it was last reset, in bytes."""
    line = next(text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def taken(work: Callable[[], object]) -> int:
    """Bytes that some work holds at most, beyond what was held before; skips the test where Linux cannot tell."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    try:
        CLEAR.write_text("5")
    except OSError:
        pytest.skip("this kernel does not let the high-water mark be reset")
    before = high_water()
    work()
    return high_water() - before


def taken_by_tensors(work: Callable[[], object]) -> int:
    """Bytes of tensors that some work holds at most.

    Exact, where the process's high-water mark also has what malloc keeps of freed blocks: many small ones leave it
    five times as high. It does not see what C++ code allocates outside torch.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(accumulate(change for _, change in changes), default=0)
