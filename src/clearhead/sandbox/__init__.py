"""Run untrusted programs, confined: no network, no files but their own, bounded time, memory and output."""

import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from clearhead.errors import SandboxError
from clearhead.sandbox.backends import available, backend, consent, explain, guarantees, must_confine, starter
from clearhead.sandbox.child import batch
from clearhead.sandbox.confinement.grants import hide
from clearhead.sandbox.confinement.priority import low as low_priority
from clearhead.sandbox.limits import MIB, Backend, Chunk, Limits, Outcome, Program, Raised, Tested
from clearhead.sandbox.processes import gate, watch
from clearhead.sandbox.processes.cancel import Cancelled, cancelled_by
from clearhead.sandbox.processes.gate import capacity, needs, share

DEFAULT = Limits()
R = TypeVar("R")

__all__ = [
    "DEFAULT", "MIB", "Backend", "Cancelled", "Chunk", "Judged", "Limits", "Outcome", "Program", "Raised",
    "SandboxError", "Tested", "available", "backend", "cancelled_by", "capacity", "consent", "explain", "guarantees",
    "hide", "judge", "judge_each", "low_priority", "must_confine", "run", "run_each", "share", "warm",
]  # fmt: skip


def run(
    source: str | Sequence[Chunk],
    *,
    files: Sequence[tuple[str, bytes]] = (),
    limits: Limits = DEFAULT,
    stdin: str = "",
    want: Sequence[tuple[str, str]] = (),
    preload: Sequence[str] = (),
    salt: int = 1,
    name: str | None = None,
    owner: str = "",
) -> Outcome:
    """Run a program in a confined process of its own and wait for it.

    Args:
        source: Python, or chunks that run one after another in one namespace.
        files: (name, content) of files to put into the program's working folder, which is otherwise empty.
        want: (name, format spec) of variables to return as text, in `Outcome.values`.
        preload: modules that the warm worker has already imported: a torch program starts in milliseconds, not seconds.
        salt: seeds Python's hashes and whatever the program does not seed, so that runs with two salts can be compared.
        name: a back end of `available()` by name; None is the best.
        owner: whose program it is. Owners take turns when programs wait for room: see `capacity`.
    Returns:
        Outcome. A program that fails or is stopped is an outcome, not an exception. A program that is killed from
        outside runs once more.
    Raises:
        SandboxError: this machine cannot confine programs, the worker does not start, or the program was killed twice.

    >>> run("print(6 * 7)").stdout
    '42\\n'
    >>> run("import socket; socket.socket()").raised.type
    'PermissionError'
    """

    def once(last: bool) -> Outcome:
        how, confined = starter(preload, salt, name)
        running = watch.Running(
            _chunks(source, "program.py"), limits=limits, stdin=stdin, files=files, want=want, salt=salt,
            confined=confined,
        )  # fmt: skip
        running.launch(how)
        return running.finish(last=last)

    with gate.current().hold(owner, 1, needs(limits)):
        return _again_if_interrupted(once)


def warm(preload: Sequence[str] = (), salts: Sequence[int] = (1,)) -> None:
    """Start the workers for these modules and salts now, in parallel, so that the first program need not wait."""
    for salt in salts:
        starter(preload, salt)


def run_each(
    programs: Sequence[Program],
    *,
    limits: Limits = DEFAULT,
    time_each: float | None = None,
    preload: Sequence[str] = (),
    salt: int = 1,
    name: str | None = None,
    owner: str = "",
) -> list[Outcome] | None:
    """Run programs of one author one after another in one confined process, ten times as fast as with `run`.

    Args:
        limits: for all of them together.
        time_each: seconds that each of them may take; None: the time limit of all together.
    Returns:
        One Outcome per program, or None if a program ended the process, reached a limit or replaced something of
        Python or torch: then run them one by one. A program may see what an earlier one left behind; if that matters,
        compare with the opposite order.

    >>> [outcome.stdout for outcome in run_each([Program((Chunk("print(1)"),)), Program((Chunk("print(2)"),))])]
    ['1\\n', '2\\n']
    """
    mark = f"\x1e{secrets.token_hex(8)}\x1e"

    def once(last: bool) -> list[Outcome] | None:
        how, confined = starter(preload, salt, name)
        running = watch.Running(
            programs, limits=limits, stdin="", files=(), want=(), salt=salt, role="programs", confined=confined,
            mark=mark, time_each=time_each,
        )  # fmt: skip
        running.launch(how)
        return batch.outcomes(running.finish(last=last), running.each, mark, len(programs))

    with gate.current().hold(owner, 1, needs(limits)):
        return _again_if_interrupted(once)


@dataclass(frozen=True, slots=True)
class Judged:
    """The results of a program's tests. `program` and `examiner` are the outcomes of the two processes."""

    tests: tuple[Tested, ...]
    program: Outcome
    examiner: Outcome

    @property
    def passed(self) -> bool:
        """Whether there was at least one test, and every test passed."""
        return bool(self.tests) and all(test.passed for test in self.tests)


# Outcome.stopped -> the message for a learner whose program or tests were stopped.
_WHY = {
    "time": "It was stopped after {limits.seconds:g} seconds. Is there a loop that never ends?",
    "memory": "It was stopped: it asked for too much memory.",
    "output": "It was stopped: it printed more than {limits.output:,} bytes.",
    "disk": "It was stopped: it wrote more than {limits.disk:,} bytes.",
    "start": "It ended before its tests did.",
    "report": "It damaged its own report. Does it write to a file descriptor that it did not open?",
}


def judge(
    program: str | Sequence[Chunk],
    tests: str | Sequence[Chunk],
    *,
    limits: Limits = DEFAULT,
    preload: Sequence[str] = (),
    salt: int = 1,
    name: str | None = None,
    owner: str = "",
) -> Judged:
    """Test a program that may try to deceive: the program and its tests run in two confined processes.

    Args:
        program: the program to test; it may print, define functions and classes, and set variables.
        tests: Python with `test_…` functions, run in order. They reach the program as `learner.name`; `close(actual,
            expected, tolerance)` asserts a tensor, shape first; `with raises(ValueError, "scale"):` an exception.
    Returns:
        Judged. The processes exchange plain data, so the program can return wrong values but cannot forge the verdict.

    >>> judge("def double(x): return 2 * x", "assert learner.double(3) == 6").passed
    True
    """
    given = (_chunks(program, "program.py"), _chunks(tests, "tests.py"))
    learner, examiner = _two_sides(given, ("learner", "tests"), limits, preload, salt, name, owner)
    results, loaded = examiner[0].tests, learner[0]
    if loaded.stopped or not results:
        why = _WHY[loaded.stopped or examiner[0].stopped or "start"].format(limits=limits)
        results = (
            *(result for result in results if result.passed),
            Tested("The program comes to an end", False, why, None),
        )
    return Judged(results, loaded, examiner[0])


def judge_each(
    cases: Sequence[tuple[Sequence[Chunk], Sequence[Chunk]]],
    *,
    limits: Limits = DEFAULT,
    preload: Sequence[str] = (),
    salt: int = 1,
    name: str | None = None,
    owner: str = "",
) -> list[Judged] | None:
    """Judge programs of one author one after another in the same two confined processes. Never a learner's.

    Args:
        cases: (program, its tests), as for `judge`.
        limits: for all of them together.
    Returns:
        One Judged per program, with the outcomes of the two processes they shared; or None, in the same cases as
        `run_each`: then judge them one by one.

    >>> tests = [Chunk("assert double(3) == 6")]
    >>> cases = [([Chunk(f"def double(x): return {n} * x")], tests) for n in (2, 3)]
    >>> [verdict.passed for verdict in judge_each(cases)]
    [True, False]
    """
    given = [[Program(tuple(side)) for side in sides] for sides in zip(*cases, strict=True)]
    (learner, served), (examiner, examined) = _two_sides(
        (given[0], given[1]), ("learners", "tests of each"), limits, preload, salt, name, owner
    )
    verdicts = batch.verdicts((learner, examiner), served, examined, len(cases))
    return None if verdicts is None else [Judged(tests, learner, examiner) for tests in verdicts]


Side = tuple[Outcome, Sequence[Mapping[str, Any]]]


def _two_sides(
    given: tuple[Sequence[Chunk] | Sequence[Program], Sequence[Chunk] | Sequence[Program]], roles: tuple[str, str],
    limits: Limits, preload: Sequence[str], salt: int, name: str | None, owner: str,
) -> tuple[Side, Side]:  # fmt: skip
    """Run two processes that share a channel. Return each one's outcome, and its reports if it ran several programs."""

    def once(last: bool) -> tuple[Side, Side]:
        how, confined = starter(preload, salt, name)
        sides = []
        with ExitStack() as launched:
            pair = socket.socketpair()
            with pair[0], pair[1]:
                for program, role, end in zip(given, roles, pair, strict=True):
                    side = watch.Running(
                        program, limits=limits, stdin="", files=(), want=(), salt=salt, role=role, channel=end.fileno(),
                        confined=confined,
                    )  # fmt: skip
                    launched.callback(side.abandon)  # does nothing after `finish`
                    side.launch(how)
                    sides.append(side)
            sides[0].partner, sides[1].partner = sides[1], sides[0]
            with ThreadPoolExecutor(1) as beside:
                other = beside.submit(sides[0].finish, last=last)
                try:
                    examiner = sides[1].finish(last=last)
                except BaseException:
                    sides[0].kill()
                    raise
                return (other.result(), sides[0].each), (examiner, sides[1].each)

    with gate.current().hold(owner, 2, needs(limits, 2)):
        return _again_if_interrupted(once)


def _again_if_interrupted(once: Callable[[bool], R]) -> R:
    """Run programs, and once more if one of their processes was killed from outside; the second result counts."""
    try:
        return once(False)
    except watch.Interrupted:
        return once(True)


def _chunks(source: str | Sequence[Chunk], file: str) -> list[Chunk]:
    return [Chunk(source, file)] if isinstance(source, str) else list(source)
