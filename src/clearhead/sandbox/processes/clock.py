"""How long a program has had: wall time, without the time for which it was ready to run and had no processor.

Programs have a low priority (`confinement.priority`). On a busy machine a wall clock alone would stop honest ones.
"""

import time
from collections.abc import Sequence

PATIENCE = 3.0  # a limit of n seconds ends after 3n seconds of wall time, whatever the program waited for


class Clock:
    """The clock of one program; it starts when it is made."""

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
    """Return the seconds for which the first thread of process `pid` was ready to run and had no processor.

    Source: Documentation/scheduler/sched-stats.rst of the kernel. 0 where the kernel does not count, or it has ended.
    """
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as file:  # noqa: PTH123 — read again and again near a limit
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
