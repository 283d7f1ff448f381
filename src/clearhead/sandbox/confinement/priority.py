"""Lower the scheduling priority of confined programs, so that pages of a shared studio run before programs.

Two nice values matter. A thread's nice value weighs it against the other threads of its task group. If the kernel
groups tasks by session (CONFIG_SCHED_AUTOGROUP), each session is a task group, with its own nice value: an endless
program in its own session would get as much of a core as the whole studio, whatever the nice value of its threads. So
programs share their worker's session, whose nice value is raised too. Source: sched(7), "The autogroup feature".
"""

import os
import time

NICE = 10  # added to the nice value of the starting process; leaves a tenth of a core if pages keep it busy
_LOWEST = 19
_AGAIN, _TRIES = 0.11, 20  # without CAP_SYS_ADMIN the kernel accepts one change per 0.1 s, over all sessions
_low = False


def low() -> None:
    """Start confined programs at a low priority from now on. Workers that run already keep theirs."""
    global _low
    _low = True


def is_low() -> bool:
    """Return whether confined programs are started at a low priority."""
    return _low


def lower() -> None:
    """Lower the priority of this process and its children. Only CAP_SYS_NICE, which `confine` drops, can raise it."""
    os.setpriority(os.PRIO_PROCESS, 0, min(os.getpriority(os.PRIO_PROCESS, 0) + NICE, _LOWEST))


def lower_session(pid: int) -> None:
    """Lower the priority of the session of process `pid`. Does nothing if the kernel has no autogroups."""
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
