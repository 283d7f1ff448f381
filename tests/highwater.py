"""How much memory some work takes: the process's own high-water mark, reset before it."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
