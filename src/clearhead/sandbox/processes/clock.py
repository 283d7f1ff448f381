"""Measure how long a program has run: wall time, without the time it was runnable but waited for a processor.

Programs have a low priority (`confinement.priority`). On a busy machine, wall time alone would stop honest programs.
"""

import time
from collections.abc import Sequence

PATIENCE = 3.0  # a limit of n seconds also ends after 3n seconds of wall time, however long the program waited


class Clock:
    """The clock of one program. It starts when it is created."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self._waited: dict[int, float] = {}

    def wall(self) -> float:
        """Return the seconds since it started."""
        return time.monotonic() - self.started

    def seconds(self, pids: Sequence[int]) -> float:
        """Return the seconds that count against a limit.

        Args:
            pids: of the program, and of those it waits for: the two processes of a test wait for each other.
        """
        for pid in pids:
            self._waited[pid] = max(waited(pid), self._waited.get(pid, 0.0))  # 0 once it has ended
        wall = self.wall()
        return max(wall - sum(self._waited.values()), wall / PATIENCE)


def waited(pid: int) -> float:
    """Return the seconds that the first thread of process `pid` was runnable but waited for a processor.

    0 if the kernel does not count them, or the process has ended. Source: the kernel's scheduler/sched-stats.rst.
    """
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as file:  # noqa: PTH123 — read again and again near a limit
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
