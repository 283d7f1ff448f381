"""Programs of a shared studio have a low priority, their threads too; their limits do not count the wait for it."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clearhead import sandbox
from clearhead.sandbox.confinement import priority
from clearhead.sandbox.processes import clock, pool, watch

BACKENDS = [each.name for each in sandbox.available()]
# It tries to raise its priority in each way there is, and holds a thread until it is cancelled.
PROGRAM = """
import os, threading, time
def tried(work):
    try: work()
    except OSError: return
    print("raised", flush=True)
tried(lambda: os.nice(-1))
tried(lambda: os.setpriority(os.PRIO_PROCESS, 0, 0))
tried(lambda: os.setpriority(os.PRIO_PGRP, 0, 0))
tried(lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)))
tried(lambda: open("/proc/self/autogroup", "w").write("0"))
tried(lambda: open("/proc/thread-self/autogroup", "w").write("0"))
tried(os.setsid)
threading.Thread(target=time.sleep, args=(50,), daemon=True).start()
os.write(1, b"ready")
time.sleep(50)
"""


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Programs start at a low priority, from workers of their own."""
    monkeypatch.setattr(pool, "_workers", {})
    monkeypatch.setattr(priority, "_low", False)
    sandbox.low_priority()
    yield
    pool.close_all()


@contextmanager
def running(backend: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[watch.Running]:
    """PROGRAM, once it has said that it is ready."""
    launched: list[watch.Running] = []
    launch = watch.Running.launch
    monkeypatch.setattr(watch.Running, "launch", lambda self, starter: (launch(self, starter), launched.append(self)))
    enough = threading.Event()

    def run() -> None:
        with sandbox.cancelled_by(enough), pytest.raises(sandbox.Cancelled):
            sandbox.run(PROGRAM, limits=sandbox.Limits(seconds=60.0), name=backend)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while not (launched and b"ready" in launched[0].buffers[launched[0].out]):
            assert thread.is_alive(), "the program ended"
            time.sleep(0.01)
        yield launched[0]
    finally:
        enough.set()
        thread.join()


def nice_values(pid: int) -> list[int]:
    """Return the nice values of all threads of a process."""
    stats = [(thread / "stat").read_text() for thread in Path(f"/proc/{pid}/task").iterdir()]
    return [int(stat.rpartition(")")[2].split()[16]) for stat in stats]


def autogroup(pid: int) -> tuple[str, int] | None:
    """Return the name and nice value of the task group of a process's session.

    None where the kernel has no such groups, and for a process of the first session, whose file is empty.
    """
    file = Path(f"/proc/{pid}/autogroup")
    words = file.read_text().split() if file.exists() else []
    return (words[0], int(words[-1])) if words else None


@pytest.mark.slow
@pytest.mark.usefixtures("low")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_program_and_its_threads_have_a_low_priority_and_cannot_raise_it(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(backend, monkeypatch) as program:
        assert program.pid is not None
        lower = min(os.getpriority(os.PRIO_PROCESS, 0) + priority.NICE, 19)
        assert nice_values(program.pid) == [lower, lower]
        group = autogroup(program.pid)
        if group is not None:
            own = autogroup(os.getpid())
            assert own is None or group[0] != own[0]
            assert group[1] == priority.NICE
        assert b"raised" not in program.buffers[program.out]


@pytest.mark.slow
@pytest.mark.skipif("landlock" not in BACKENDS, reason="no warm worker here")
@pytest.mark.usefixtures("low")
def test_programs_of_a_worker_share_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of its own for each would weigh as much as the whole studio where the kernel groups tasks by session."""
    with running("landlock", monkeypatch) as program:
        assert program.pid is not None
        (worker,) = pool._workers.values()
        assert os.getsid(program.pid) == os.getsid(worker.process.pid) != os.getsid(0)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_other_programs_keep_the_priority_of_their_process(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_workers", {})
    with running(backend, monkeypatch) as program:
        assert program.pid is not None
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert nice_values(program.pid) == [own, own]
        group = autogroup(program.pid)
        assert group is None or group[1] == 0
    pool.close_all()


SHARES = """
import os, sys, threading, time
from clearhead import sandbox
from clearhead.sandbox.processes import watch
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
sandbox.low_priority()
sandbox.run("1", name=sys.argv[1])
enough, launched, launch = threading.Event(), [], watch.Running.launch
def noted(self, starter):
    launch(self, starter)
    launched.append(self)
watch.Running.launch = noted
def endless():
    with sandbox.cancelled_by(enough):
        try: sandbox.run("print(1, flush=True)\\nwhile True: pass", limits=sandbox.Limits(seconds=60), name=sys.argv[1])
        except sandbox.Cancelled: pass
threads = [threading.Thread(target=endless) for _ in range(3)]
for thread in threads: thread.start()
while not (len(launched) == 3 and all(each.buffers[each.out] for each in launched)): time.sleep(0.01)
used = lambda: sum(int(open(f"/proc/{each.pid}/schedstat").read().split()[0]) for each in launched) / 1e9
began, before = time.thread_time(), used()
while time.thread_time() - began < 1.0: pass
print(used() - before)
enough.set()
for thread in threads: thread.join()
"""


@pytest.mark.stress
@pytest.mark.parametrize("backend", BACKENDS)
def test_endless_programs_leave_a_core_to_pages(backend: str) -> None:
    """Three of them beside a second of work on the same core: they had 3 s of it in sessions of their own."""
    done = subprocess.run([sys.executable, "-c", SHARES, backend], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.5


class Time:
    """A clock that is set by hand, and how long each process has waited."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.waited = 1000.0, {7: 0.0, 11: 0.0}
        monkeypatch.setattr(clock.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(clock, "waited", lambda pid: self.waited.get(pid, 0.0))


def test_waiting_for_a_processor_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)
    measured = clock.Clock()
    time.now, time.waited[7] = 1009.0, 5.5
    assert (measured.wall(), measured.seconds([7])) == (9.0, 3.5)
    time.now, time.waited[11] = 1011.0, 1.25
    assert measured.seconds([7, 11]) == 11.0 - 5.5 - 1.25
    del time.waited[11]  # it has ended: what it waited stays
    assert measured.seconds([7, 11]) == 11.0 - 5.5 - 1.25


def test_a_limit_ends_however_long_a_program_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)
    measured = clock.Clock()
    time.now, time.waited[7] = 1030.0, 30.0
    assert measured.seconds([7]) == 30.0 / clock.PATIENCE


@pytest.mark.slow
def test_the_kernel_counts_what_a_process_waits() -> None:
    core = str(min(os.sched_getaffinity(0)))
    busy = [subprocess.Popen(["taskset", "-c", core, sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        until = time.monotonic() + 20
        while min(clock.waited(process.pid) for process in busy) < 0.03 and time.monotonic() < until:
            time.sleep(0.02)
        assert min(clock.waited(process.pid) for process in busy) >= 0.03
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert clock.waited(busy[0].pid) == 0.0
