"""What the load test does to a running studio: it kills a worker, the sandbox or the database, or fills the disk.

Each disturbance returns how many processes of each kind it reached.
"""

import argparse
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

OUTAGE = 5  # seconds for which the database is down or the disk full
WAIT = 30  # seconds to wait for a running program
PROGRAMS = "clearhead.sandbox"  # in the command line of processes that run programs
Reached = dict[str, int]  # kind of process -> how many


def family(process: int) -> dict[int, tuple[str, float, float]]:
    """The process and its descendants: pid -> (command line, processor seconds, those of its ended children)."""
    tick, found, todo = os.sysconf("SC_CLK_TCK"), dict[int, tuple[str, float, float]](), [process]
    while todo:
        pid = todo.pop()
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            own, ended = (sum(map(int, fields[start : start + 2])) / tick for start in (11, 13))
            found[pid] = Path(f"/proc/{pid}/cmdline").read_text(), own, ended
            todo += _children(pid)
    return found


def kill(pids: Iterable[int]) -> int:
    """Kill these processes immediately and return how many existed."""
    killed = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def disturbances(options: argparse.Namespace, server: int, cluster: Any) -> dict[str, Callable[[], Reached]]:
    """The disturbances that the options select, in order; each returns what it reached."""

    def worker() -> Reached:
        workers = [pid for pid, (line, *_) in family(server).items() if pid != server and "spawn_main" in line]
        return {"workers": kill(workers[:1])}

    def sandbox() -> Reached:
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            running, warm = sandboxed(server)
            if running and (killed := kill(running)):  # first: they end with their worker
                return {"programs": killed, "workers of the sandbox": kill(warm)}
            time.sleep(0.002)
        return {"programs": 0}

    def database() -> Reached:
        postmaster = postmaster_of(cluster)
        connections = len(family(postmaster)) - 1
        killed = kill([postmaster])
        time.sleep(OUTAGE)
        _start(cluster)
        return {"servers": killed, "processes of the server": connections}

    def disk() -> Reached:
        of_database = [*family(postmaster_of(cluster))] if cluster else []
        reached = {"studio": _limit_files(family(server), 0), "database": _limit_files(of_database, 0)}
        time.sleep(OUTAGE)
        with suppress(OSError):  # PostgreSQL stops if it cannot write its log, as on any full disk
            _limit_files(family(postmaster_of(cluster)) if cluster else [], None)
        _limit_files(family(server), None)
        if cluster:
            _start(cluster)
        return reached

    acts = {"kill-worker": worker, "kill-sandbox": sandbox, "kill-database": database, "full-disk": disk}
    return {name: act for name, act in acts.items() if getattr(options, name.replace("-", "_"))}


def sandboxed(server: int) -> tuple[list[int], list[int]]:
    """The processes that are running a program, and those that started them: warm workers, and bubblewrap."""
    found = [pid for pid, (line, *_) in family(server).items() if PROGRAMS in line]
    children = {child for pid in found for child in _children(pid)}
    return [pid for pid in found if pid in children], [pid for pid in found if pid not in children]


def _children(pid: int) -> list[int]:
    """Return the children of a process. The kernel lists a child under the thread that started it."""
    with suppress(OSError):
        threads = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    return []


def _start(cluster: Any) -> None:
    """Start the database if it is not running. After a kill -9 the old processes take a moment to end."""
    for _ in range(30):
        with suppress(subprocess.CalledProcessError):
            cluster.control("status")
            return
        with suppress(subprocess.CalledProcessError):
            cluster.control("start")
        time.sleep(1)
    raise SystemExit("the database did not start again")


def postmaster_of(cluster: Any) -> int:
    """Return the process id of this database server."""
    return int((cluster._folder / "data" / "postmaster.pid").read_text().split()[0])


def _limit_files(pids: Iterable[int], most: int | None) -> int:
    """Limit the files these processes may write to `most` bytes, None for no limit; return how many were reached.

    The limit is set as each process's own user, because root in a container may not. Confined programs are not reached.
    """
    reached = 0
    for pid in pids:
        with suppress(OSError):
            process = Path(f"/proc/{pid}").stat()
            who: dict[str, Any] = {"user": process.st_uid, "group": process.st_gid, "extra_groups": []}
            command = ["prlimit", f"--pid={pid}", f"--fsize={'unlimited' if most is None else most}:"]
            limited = subprocess.run(command, capture_output=True, check=False, **(who if os.getuid() == 0 else {}))
            reached += limited.returncode == 0
    return reached
