"""Run code that is not ours, confined: no network, no files but its own, bounded time, memory, output."""

import secrets
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from clearhead.errors import SandboxError
from clearhead.sandbox import batch, pool
from clearhead.sandbox.backends import available, backend, consent, explain, must_confine, starter
from clearhead.sandbox.limits import MIB, Backend, Chunk, Limits, Outcome, Program, Raised, Tested

DEFAULT = Limits()

__all__ = [
    "DEFAULT", "MIB", "Backend", "Chunk", "Judged", "Limits", "Outcome", "Program", "Raised", "SandboxError",
    "Tested", "available", "backend", "consent", "explain", "judge", "must_confine", "run", "run_each", "warm",
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
) -> Outcome:
    """Run a program in a confined process of its own and wait for it.

    Args:
        source: Python, or chunks that run one after another in one namespace.
        files: (name, content) put into its empty folder, which is also its working folder.
        want: (name, format spec) of variables to bring back as text, in `Outcome.values`.
        preload: modules the warm worker has imported already: a torch program starts in milliseconds, not seconds.
        salt: seeds whatever the program does not seed, and Python's hashes; two salts, two runs that must agree.
        name: a back end of `available()` by name; None is the best.
    Returns:
        Outcome. A program that fails, or is stopped, is an outcome, not an exception.
    Raises:
        SandboxError: this machine cannot confine, or the worker does not start.

    >>> run("print(6 * 7)").stdout
    '42\\n'
    >>> run("import socket; socket.socket()").raised.type
    'PermissionError'
    """
    with_what, confined = starter(preload, salt, name)
    running = pool.Running(
        _chunks(source, "program.py"), limits=limits, stdin=stdin, files=files, want=want, salt=salt, confined=confined
    )
    running.launch(with_what)
    return running.finish()


def warm(preload: Sequence[str] = (), salts: Sequence[int] = (1,)) -> None:
    """Start the workers for these now, side by side, so that the first program need not wait for one after another."""
    for salt in salts:
        starter(preload, salt)


def run_each(
    programs: Sequence[Program],
    *,
    limits: Limits = DEFAULT,
    preload: Sequence[str] = (),
    salt: int = 1,
    name: str | None = None,
) -> list[Outcome] | None:
    """Run programs of one author one after another in one confined process: ten times as fast as a process each.

    Args:
        limits: of all of them together.
    Returns:
        An Outcome a program, or None if one of them ended the process or met a limit: then run them one by one.
        A program may see what an earlier one left behind; where that matters, compare with the opposite order.

    >>> [one.stdout for one in run_each([Program((Chunk("print(1)"),)), Program((Chunk("print(2)"),))])]
    ['1\\n', '2\\n']
    """
    with_what, confined = starter(preload, salt, name)
    mark = f"\x1e{secrets.token_hex(8)}\x1e"
    running = pool.Running(
        programs, limits=limits, stdin="", files=(), want=(), salt=salt, role="batch", confined=confined, mark=mark
    )
    running.launch(with_what)
    return batch.outcomes(running.finish(), running.each, mark, len(programs))


@dataclass(frozen=True, slots=True)
class Judged:
    """What the tests say of a program. `program` and `examiner` are the outcomes of the two processes."""

    tests: tuple[Tested, ...]
    program: Outcome
    examiner: Outcome

    @property
    def passed(self) -> bool:
        """Every test passed, and there was one."""
        return bool(self.tests) and all(test.passed for test in self.tests)


def judge(
    program: str | Sequence[Chunk],
    tests: str | Sequence[Chunk],
    *,
    limits: Limits = DEFAULT,
    preload: Sequence[str] = (),
    salt: int = 1,
    name: str | None = None,
) -> Judged:
    """Test a program that may want to deceive: it and its tests run in two confined processes.

    Args:
        program: what is tested; it may print, define functions and classes, and set variables.
        tests: Python with `test_…` functions, run in order. They reach the program as `learner.name`; `close(actual,
            expected, tolerance)` asserts a tensor, shape first; `with raises(ValueError, "scale"):` an exception.
    Returns:
        Judged. Values travel as plain data, so the program can answer wrongly and no more.

    >>> judge("def double(x): return 2 * x", "assert learner.double(3) == 6").passed
    True
    """
    with_what, confined = starter(preload, salt, name)
    pair = socket.socketpair()
    given = (_chunks(program, "program.py"), _chunks(tests, "tests.py"))
    ends: list[Outcome] = []
    with pair[0], pair[1]:
        sides = [
            pool.Running(
                chunks,
                limits=limits,
                stdin="",
                files=(),
                want=(),
                salt=salt,
                role=role,
                channel=end.fileno(),
                confined=confined,
            )
            for chunks, role, end in zip(given, ("learner", "tests"), pair, strict=True)
        ]
        for side in sides:
            side.launch(with_what)
    other = threading.Thread(target=lambda: ends.append(sides[0].finish()))
    other.start()
    examiner = sides[1].finish()
    other.join()
    found = examiner.tests
    if ends[0].stopped or not found:
        why = f"stopped: {ends[0].stopped}" if ends[0].stopped else f"the tests did not finish: {examiner.stopped}"
        found = (*(one for one in found if one.passed), Tested("the program ends in time and memory", False, why, None))
    return Judged(found, ends[0], examiner)


def _chunks(source: str | Sequence[Chunk], file: str) -> list[Chunk]:
    return [Chunk(source, file)] if isinstance(source, str) else list(source)
