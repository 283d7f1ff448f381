"""How a command ends: what went wrong in one sentence on standard error, and an exit status that scripts can rely on.

| status | meaning |
|---|---|
| 0 | done |
| 1 | something was checked, and it is wrong |
| 2 | it could not be done; the sentence says why |
| 70 | a fault in Clearhead itself |
| 130 | stopped by Ctrl-C |
| 141 | whatever read the output has closed it, as `head` does |
"""

import codecs
import contextlib
import errno
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from clearhead.errors import ClearheadError
from clearhead.printing import say

WRONG, FAILED, FAULT, STOPPED, CLOSED = 1, 2, 70, 130, 141
STATUSES = (
    "Exit status: 0 done, 1 what was checked is wrong, 2 it could not be done (a sentence says why), 70 a fault in "
    "Clearhead, 130 stopped by Ctrl-C, 141 the reader of the output closed it."
)
PLAINLY = "clearhead"  # the name of our handler for encoding errors
DEBUG = "CLEARHEAD_DEBUG"  # set: a fault shows its traceback
# What stands for a character that the terminal's encoding lacks; one for one, so that columns keep their width.
_PLAIN = {"░": "-", "▒": "=", "▓": "%", "█": "@", "╱": "/", "·": ".", "…": "~", "→": ">", "–": "-", "—": "-", "‘": "'",
          "’": "'", "“": '"', "”": '"', "␣": "_", "⏎": "|", "⇥": ">", "∅": "0", "∞": "8"}  # fmt: skip


class Door(TyperGroup):
    """A Typer app in which every expected failure of every command ends in a sentence and a status.

    What nobody expected passes through: it is a fault, and `run` says so to a person.
    """

    def main(self, *args: Any, **options: Any) -> Any:
        _prepare()
        with _flushed():
            return super().main(*args, **options)

    def make_context(self, *args: Any, **options: Any) -> Any:
        with told():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with told():
            return super().invoke(ctx)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn what a command raises because of its input or its machine into a sentence and a status."""
    try:
        yield
    except (KeyboardInterrupt, typer.Abort) as error:
        say("stopped")
        raise typer.Exit(STOPPED) from error
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # how rich ends where the reader has gone
            raise typer.Exit(CLOSED) from error
        raise
    except Exception as error:
        ended = ending(error)
        if ended is None:
            raise
        status, sentence = ended
        if sentence:
            say(f"clearhead: {sentence}")
        raise typer.Exit(status) from error


def ending(error: Exception) -> tuple[int, str] | None:
    """The status and the sentence of an expected failure; None for a fault."""
    if isinstance(error, ClearheadError):
        return FAILED, str(error)
    if isinstance(error, BrokenPipeError):
        return CLOSED, ""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in str(error)):
        return FAILED, "there is not enough memory for this. Give less to do at once, or close other programs."
    if isinstance(error, ModuleNotFoundError) and not (error.name or "clearhead").startswith("clearhead"):
        return FAILED, f"{error.name} is not installed. Run `pip install --upgrade clearhead`."
    if isinstance(error, OSError) and not isinstance(error, (ImportError, ChildProcessError)):
        why = error.strerror or str(error) or type(error).__name__
        if error.filename is not None:
            return FAILED, f"{os.fsdecode(error.filename)} cannot be used: {why}."
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF, errno.EFBIG):
            return FAILED, f"the output cannot be written: {why}."
        return FAILED, f"the system refused: {why}."
    return None


def run(app: Callable[[], object]) -> None:
    """Run the app as a process: also a fault ends in a sentence, and a warning shows without a path of ours."""
    warnings.showwarning = _warn
    try:
        app()
    except Exception as error:  # noqa: BLE001 — the last stop before Python's own traceback
        if os.environ.get(DEBUG):
            traceback.print_exc()
        say(f"clearhead: {_fault(error)}")
        raise SystemExit(FAULT) from None
    except KeyboardInterrupt:  # outside `told`: while the output is flushed
        say("stopped")
        raise SystemExit(STOPPED) from None
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C again, while workers are sent home: at once and quietly


def _fault(error: Exception) -> str:
    """A fault in a sentence: what, where, and how to report it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(__file__).parent in Path(frame.filename).parents] or frames
    place = f" ({Path(ours[-1].filename).name}:{ours[-1].lineno})" if ours else ""
    words = " ".join(str(error).split())[:300]
    return (
        f"unexpected {type(error).__name__}{place}{': ' if words else ''}{words.rstrip('.')}. This is a fault in "
        f"Clearhead. Set {DEBUG}=1 to see the traceback, and report it."
    )


def _warn(message: Warning | str, *_where: object, **_more: object) -> None:
    say(f"clearhead: {message}")


def _prepare() -> None:
    """Make the standard streams safe to write to: none is missing, and none stops at a letter it cannot show."""
    for name, descriptor in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:  # closed by the shell; no file opened later may become standard output
            mode = "w" if name == "stderr" else "r"  # standard output stays one that nothing can be written to
            with contextlib.suppress(OSError):
                _open(name, descriptor, mode)
    codecs.register_error(PLAINLY, _plainly)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=PLAINLY)


def _open(name: str, descriptor: int, mode: str) -> None:
    _lead(descriptor, os.O_WRONLY if mode == "w" else os.O_RDONLY)
    setattr(sys, name, open(descriptor, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def _lead(descriptor: int, how: int) -> None:
    """Let a descriptor lead to nowhere."""
    opened = os.open(os.devnull, how)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = "".join(_PLAIN.get(one, one) for one in error.object[error.start : error.end])
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


@contextlib.contextmanager
def _flushed() -> Iterator[None]:
    """Write what is still buffered before the status is final: Python does it too late to say anything of it."""
    try:
        yield
    except SystemExit as leaving:
        status = CLOSED if isinstance(leaving.__context__, BrokenPipeError) else leaving.code
        raise SystemExit(_flush(status)) from None
    except OSError as error:  # a message that could not be shown
        raise SystemExit(FAILED) from error


def _flush(status: Any) -> Any:
    """Flush standard output; the status that is final then."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):  # what is left in the buffer goes nowhere
            _lead(sys.stdout.fileno(), os.O_WRONLY)
        ended = ending(error)
        if ended is None:
            return status or FAILED
        if not status and ended[1]:
            say(f"clearhead: {ended[1]}")
        return status or ended[0]
    return status
