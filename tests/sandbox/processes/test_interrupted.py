"""A program that is killed from outside, or whose worker is, runs again: nobody is graded by that."""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from clearhead import sandbox
from clearhead.sandbox.processes import pool, watch

NAMES = [offered.name for offered in sandbox.available() if offered.name != "unconfined"]
pytestmark = pytest.mark.skipif(not NAMES, reason=f"no confinement here: {sandbox.explain()}")
SLOW = "import time; time.sleep(0.6)\ndef double(x): return 2 * x\nprint(double(3))"
Kill = Callable[[watch.Running, object], int | None]


def program(running: watch.Running, _starter: object) -> int | None:
    return running.pid


def worker(running: watch.Running, starter: object) -> int | None:
    return starter.process.pid if running.pid and isinstance(starter, pool.Worker) else None


def kills(monkeypatch: pytest.MonkeyPatch, count: int, whom: Kill) -> list[int]:
    """Have the first `count` programs killed while they run; return who was."""
    launch, killed, threads = watch.Running.launch, list[int](), list[threading.Thread]()

    def kill(running: watch.Running, starter: object) -> None:
        until = time.monotonic() + 30
        while (pid := whom(running, starter)) is None and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)
        if pid is not None and not running.ended:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    def then_kill(running: watch.Running, starter: watch.Starter) -> None:
        launch(running, starter)
        if len(threads) < count:
            threads.append(threading.Thread(target=kill, args=(running, starter), daemon=True))
            threads[-1].start()

    monkeypatch.setattr(watch.Running, "launch", then_kill)
    return killed


# Bubblewrap has no worker to kill.
KILLED = pytest.mark.parametrize(
    ("name", "whom"),
    [(name, whom) for name in NAMES for whom in (program, worker) if (name, whom) != ("bubblewrap", worker)],
)


@pytest.mark.slow
@KILLED
def test_it_runs_again(name: str, whom: Kill, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = kills(monkeypatch, 1, whom)
    assert sandbox.run(SLOW, name=name).stdout == "6\n"
    assert len(killed) == 1


@pytest.mark.slow
@KILLED
def test_a_verdict_is_not_changed(name: str, whom: Kill, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = kills(monkeypatch, 1, whom)
    judged = sandbox.judge(SLOW, "assert learner.double(3) == 6", name=name)
    assert judged.passed, judged
    assert len(killed) == 1


@pytest.mark.slow
@pytest.mark.skipif("landlock" not in NAMES, reason="no Landlock here")
def test_a_worker_that_is_killed_again_and_again_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    kills(monkeypatch, 2, worker)
    with pytest.raises(sandbox.SandboxError, match="killed from outside"):
        sandbox.run(SLOW, name="landlock")


@pytest.mark.skipif("landlock" not in NAMES, reason="no Landlock here")
def test_a_worker_that_ended_between_two_programs_is_replaced() -> None:
    sandbox.run("print(1)", salt=7, name="landlock")
    process = pool.worker((), 7).process
    os.kill(process.pid, signal.SIGKILL)
    assert sandbox.run("print(2)", salt=7, name="landlock").stdout == "2\n"


@pytest.mark.skipif("landlock" not in NAMES, reason="no Landlock here")
def test_a_worker_that_lost_a_program_is_asked_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its programs are gone before its socket and its process are, so that it may look alive for a moment."""

    class Quiet:
        def register(self, *_: object) -> None: ...

        def poll(self, _: int) -> list[object]:
            return []

    monkeypatch.setattr(pool, "select", SimpleNamespace(poll=Quiet))
    monkeypatch.setattr(pool.worker((), 7).process, "poll", lambda: None)
    killed = kills(monkeypatch, 1, worker)
    assert sandbox.run(SLOW, salt=7, name="landlock").stdout == "6\n"
    assert len(killed) == 1


@pytest.mark.skipif("landlock" not in NAMES, reason="no Landlock here")
def test_a_program_that_kills_itself_is_an_outcome() -> None:
    outcome = sandbox.run("import os; os.kill(os.getpid(), 9)", name="landlock")
    assert (outcome.exit_code, outcome.stopped) == (-9, "memory")
