"""What the load test does to a running studio: kills a worker, the sandbox or the database, fills the disk.

Each says how many processes of each kind it reached.
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

AWAY = 5  # seconds for which the database is away, or the disk full
WAIT = 30  # seconds to wait for a program that runs
PROGRAMS = "clearhead.sandbox"  # in the command line of what runs programs
Hit = dict[str, int]  # kind of process -> how many


def family(process: int) -> dict[int, tuple[str, float, float]]:
    """The process and everything under it: pid -> (command line, processor seconds, those of its ended children)."""
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
    """Kill these processes at once; how many there were to kill."""
    killed = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def disturbances(options: argparse.Namespace, server: int, cluster: Any) -> dict[str, Callable[[], Hit]]:
    """What was asked to happen in the middle, in this order; each gives what it reached."""

    def worker() -> Hit:
        workers = [pid for pid, (line, *_) in family(server).items() if pid != server and "spawn_main" in line]
        return {"workers": kill(workers[:1])}

    def sandbox() -> Hit:
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            running, warm = sandboxed(server)
            if running and (killed := kill(running)):  # first: they end with their worker
                return {"programs": killed, "workers of the sandbox": kill(warm)}
            time.sleep(0.002)
        return {"programs": 0}

    def database() -> Hit:
        postmaster = postmaster_of(cluster)
        connections = len(family(postmaster)) - 1
        killed = kill([postmaster])
        time.sleep(AWAY)
        _start(cluster)
        return {"servers": killed, "processes of the server": connections}

    def disk() -> Hit:
        of_database = [*family(postmaster_of(cluster))] if cluster else []
        reached = {"studio": _limit_files(family(server), 0), "database": _limit_files(of_database, 0)}
        time.sleep(AWAY)
        with suppress(OSError):  # PostgreSQL ends where it cannot write its log, as on any full disk
            _limit_files(family(postmaster_of(cluster)) if cluster else [], None)
        _limit_files(family(server), None)
        if cluster:
            _start(cluster)
        return reached

    acts = {"kill-worker": worker, "kill-sandbox": sandbox, "kill-database": database, "full-disk": disk}
    return {name: act for name, act in acts.items() if getattr(options, name.replace("-", "_"))}


def sandboxed(server: int) -> tuple[list[int], list[int]]:
    """The processes that run a program now, and those that start them: warm workers, and bubblewrap."""
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
    """Start the database unless it runs. After a kill -9 it takes a moment until the old processes are gone."""
    for _ in range(30):
        with suppress(subprocess.CalledProcessError):
            cluster.control("status")
            return
        with suppress(subprocess.CalledProcessError):
            cluster.control("start")
        time.sleep(1)
    raise SystemExit("the database did not start again")


def postmaster_of(cluster: Any) -> int:
    """Return the process of this database server."""
    return int((cluster._folder / "data" / "postmaster.pid").read_text().split()[0])


def _limit_files(pids: Iterable[int], most: int | None) -> int:
    """Let these processes write files of `most` bytes at most, None for any; how many were reached.

    Each is limited as its own user, for root in a container may not. Confined programs cannot be reached.
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
