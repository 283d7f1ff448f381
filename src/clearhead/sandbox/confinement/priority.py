"""Lower the scheduling priority of confined programs, so that pages of a shared studio run before programs.

Two numbers decide it. The nice value weighs a thread against the others of its task group. Where the kernel groups
tasks by session (CONFIG_SCHED_AUTOGROUP), each session is a task group: one endless program in a session of its own
gets as much of a core as a whole studio, whatever its nice value. So programs share their worker's session, and that
session has a nice value of its own. Source: sched(7), "The autogroup feature".
"""

import os
import time

NICE = 10  # added to what the starting process has: a tenth of a core where pages take all they can get
_LOWEST = 19
_AGAIN, _TRIES = 0.11, 20  # without CAP_SYS_ADMIN the kernel takes one change of a session in 0.1 s, of all sessions
_low = False


def low() -> None:
    """Start confined programs at a low priority from now on. Workers that run already keep theirs."""
    global _low
    _low = True


def is_low() -> bool:
    """Return whether confined programs are started at a low priority."""
    return _low


def lower() -> None:
    """Lower the priority of this process and of what it starts. Only CAP_SYS_NICE, which `confine` drops, raises it."""
    os.setpriority(os.PRIO_PROCESS, 0, min(os.getpriority(os.PRIO_PROCESS, 0) + NICE, _LOWEST))


def lower_session(pid: int) -> None:
    """Lower the priority of the session of process `pid`. Does nothing where sessions have none."""
    for _ in range(_TRIES):
        try:
            file = os.open(f"/proc/{pid}/autogroup", os.O_WRONLY)
        except OSError:
            return
        try:
            os.write(file, str(NICE).encode())
        except BlockingIOError:
            time.sleep(_AGAIN)
        except OSError:  # the process has ended
            return
        else:
            return
        finally:
            os.close(file)
