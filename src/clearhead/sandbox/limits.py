"""Types of a sandbox run: limits, programs, outcomes."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field

MIB = 1 << 20
THREAD = MIB  # bytes that a thread counts as: its 30 KiB in the kernel are in no other count, and process ids are few


@dataclass(frozen=True, slots=True)
class Limits:
    """The resources of one program.

    Attributes:
        seconds: wall time, and processor time rounded up.
        memory: bytes on top of what the interpreter (with what it preloaded) already maps; a thread counts as 1 MiB.
        output: bytes of stdout, stderr and report together.
        disk: bytes of files in its own folder, initially empty; 0: it can write nothing.
    """

    seconds: float = 10.0
    memory: int = 1024 * MIB
    output: int = MIB
    disk: int = 16 * MIB


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a program. Pieces run one after another in one namespace; `file` and `line` are for messages."""

    source: str
    file: str = "program.py"
    line: int = 1


@dataclass(frozen=True, slots=True)
class Program:
    """One of several programs to run: its chunks, and the (name, format spec) of the variables to return."""

    chunks: tuple[Chunk, ...]
    want: tuple[tuple[str, str], ...] = ()


def value_key(name: str, spec: str) -> str:
    """Return the key under which `Outcome.values` holds a variable in this format."""
    return f"{name}:{spec}" if spec else name


@dataclass(frozen=True, slots=True)
class Raised:
    """An uncaught exception. `line` is in the chunk's own file; `kinds` are its classes, nearest first."""

    type: str
    message: str
    file: str = ""
    line: int | None = None
    chunk: int = 0
    kinds: tuple[str, ...] = ()


def no_memory(raised: Raised) -> bool:
    """Return whether this exception means that the memory limit was reached."""
    return "MemoryError" in raised.kinds or "can't allocate memory" in raised.message


def disk_is_full(raised: Raised) -> bool:
    """Return whether this exception means that the disk limit was reached, where the kernel enforces it.

    ENOSPC: all files together are too large; EFBIG: one file is (RLIMIT_FSIZE).
    """
    numbers = tuple(f"[Errno {number}]" for number in (errno.ENOSPC, errno.EFBIG))
    return "OSError" in raised.kinds and raised.message.startswith(numbers)


@dataclass(frozen=True, slots=True)
class Tested:
    """The result of one test: its title, whether it passed, its message if not, its line in the tests."""

    title: str
    passed: bool
    message: str
    line: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        exit_code: 0, or 1 after an exception, or the program's own; negative: minus the signal that ended it.
        stopped: None, or why it was stopped: "time", "memory", "output", "disk", "start", or "report" if the program
            damaged its report.
        raised: the uncaught exception, if any. A malicious program can forge it, and `values` too.
        values: the variables named in `want`, as text; see `value_key`.
        tests: the results of the tests (`judge` only).
        seconds: wall time from launch to end.
    """

    stdout: str
    stderr: str
    exit_code: int
    stopped: str | None
    seconds: float
    raised: Raised | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    tests: tuple[Tested, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the program ran to its end without an uncaught exception."""
        return self.exit_code == 0 and self.stopped is None and self.raised is None


@dataclass(frozen=True, slots=True)
class Backend:
    """A way to confine programs. `warm`: a program starts in milliseconds, with its preloads already imported."""

    name: str
    warm: bool
    about: str
