"""Exit statuses: a failed command writes one sentence to standard error and exits with a status scripts can rely on.

| status | meaning |
|---|---|
| 0 | done |
| 1 | something was checked and is wrong |
| 2 | the command could not be carried out; the sentence says why |
| 70 | a fault in Clearhead itself |
| 130 | stopped by Ctrl-C |
| 141 | the reader of the output closed it, as `head` does |
"""

import codecs
import contextlib
import errno
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

import clearhead
from clearhead.errors import ClearheadError
from clearhead.files import remedy_of
from clearhead.printing import clean, report

WRONG, FAILED, FAULT, STOPPED, CLOSED = 1, 2, 70, 130, 141
STATUSES = (
    "Exit status: 0 done, 1 what was checked is wrong, 2 the command could not be carried out (a sentence says why), "
    "70 a fault in Clearhead, 130 stopped by Ctrl-C, 141 the reader of the output closed it."
)
_UsageError: Any = typer.BadParameter.__base__  # which Typer does not export
ENCODING_ERRORS = "clearhead"  # the name of our handler for characters that an encoding lacks
DEBUG = "CLEARHEAD_DEBUG"  # environment variable: if set, a fault shows its traceback
# Replacements for characters that the terminal's encoding lacks; one for one, so that columns keep their width.
_REPLACED = {"░": "-", "▒": "=", "▓": "%", "█": "@", "╱": "/", "·": ".", "…": "~", "→": ">", "–": "-", "—": "-",
             "‘": "'", "’": "'", "“": '"', "”": '"', "␣": "_", "⏎": "|", "⇥": ">", "∅": "0", "∞": "8"}  # fmt: skip


class CommandGroup(TyperGroup):
    """A Typer app that turns every expected failure of a command into a sentence and a status.

    An unexpected error passes through: it is a fault, which `run` reports.
    """

    def main(self, *args: Any, **options: Any) -> Any:
        _prepare()
        with _flushed():
            return super().main(*args, **options)

    def make_context(self, *args: Any, **options: Any) -> Any:
        with reported():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with reported():
            return super().invoke(ctx)


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn an error caused by the input or the machine into a sentence and a status."""
    try:
        yield
    except (KeyboardInterrupt, typer.Abort) as error:
        report("stopped")
        raise typer.Exit(STOPPED) from error
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Rich exits like this when the reader closes the pipe
            raise typer.Exit(CLOSED) from error
        raise
    except Exception as error:
        expected = ending(error)
        if isinstance(error, _UsageError):  # Rich shows it, and cleans less than we do
            error.message = clean(error.message)
        if expected is None:
            raise
        status, sentence = expected
        if sentence:
            report(f"clearhead: {sentence}")
        raise typer.Exit(status) from error


def ending(error: Exception) -> tuple[int, str] | None:
    """Return the status and the sentence of an expected failure; None for a fault."""
    if isinstance(error, ClearheadError):
        return FAILED, str(error)
    if isinstance(error, BrokenPipeError):
        return CLOSED, ""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in str(error)):
        return FAILED, "there is not enough memory for this. Process less at once, or close other programs."
    if isinstance(error, ModuleNotFoundError) and not (error.name or "clearhead").startswith("clearhead"):
        return FAILED, f"{error.name} is not installed. Run `pip install --upgrade 'clearhead[cli]'`."
    if isinstance(error, OSError) and not isinstance(error, (ImportError, ChildProcessError)):
        why = error.strerror or str(error) or type(error).__name__
        if error.filename is not None:
            return FAILED, f"{os.fsdecode(error.filename)} cannot be used: {why}. {remedy_of(error)}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF, errno.EFBIG):
            return FAILED, f"the output cannot be written: {why}."
        return FAILED, f"the system refused: {why}."
    return None


def run(app: Callable[[], object]) -> None:
    """Run the app as a process: report a fault in one sentence too, and print warnings without their source path."""
    warnings.showwarning = _warn
    before, sys.unraisablehook = sys.unraisablehook, _keep_interrupt
    try:
        app()
    except Exception as error:  # noqa: BLE001 — the last stop before Python's own traceback
        if os.environ.get(DEBUG):
            traceback.print_exc()
        report(f"clearhead: {_fault(error)}")
        raise SystemExit(FAULT) from None
    except KeyboardInterrupt:  # outside `reported`: while the output is flushed
        report("stopped")
        raise SystemExit(STOPPED) from None
    finally:
        sys.unraisablehook = before
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C, while workers end, exits at once


def _keep_interrupt(dropped: Any) -> None:
    """Send Ctrl-C again that fell into a finaliser or a callback, where Python prints an exception and goes on."""
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
    elif threading.current_thread() is threading.main_thread():
        again = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT))  # once the finaliser has ended
        again.daemon = True
        again.start()


def _fault(error: Exception) -> str:
    """Return a sentence about a fault in Clearhead: what it is, where, and how to report it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(clearhead.__file__).parent in Path(frame.filename).parents] or frames
    place = f" ({Path(ours[-1].filename).name}:{ours[-1].lineno})" if ours else ""
    words = " ".join(str(error).split())[:300]
    return (
        f"unexpected {type(error).__name__}{place}{': ' if words else ''}{words.rstrip('.')}. This is a fault in "
        f"Clearhead. Set {DEBUG}=1 to see the traceback, and report it."
    )


def _warn(message: Warning | str, *_where: object, **_more: object) -> None:
    report(f"clearhead: {message}")


def _prepare() -> None:
    """Make the standard streams safe to write to: open missing ones, and replace characters they cannot encode."""
    for name, descriptor in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:  # closed by the shell; a file opened later must not become standard output
            mode = "w" if name == "stderr" else "r"  # standard output stays unwritable
            with contextlib.suppress(OSError):
                _open(name, descriptor, mode)
    codecs.register_error(ENCODING_ERRORS, _encodable)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ENCODING_ERRORS)


def _open(name: str, descriptor: int, mode: str) -> None:
    _to_null(descriptor, os.O_WRONLY if mode == "w" else os.O_RDONLY)
    setattr(sys, name, open(descriptor, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def _to_null(descriptor: int, how: int) -> None:
    """Point a descriptor at the null device."""
    opened = os.open(os.devnull, how)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)


def _encodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = "".join(_REPLACED.get(char, char) for char in error.object[error.start : error.end])
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


@contextlib.contextmanager
def _flushed() -> Iterator[None]:
    """Flush the output before the status is final; Python flushes too late to report an error."""
    try:
        yield
    except SystemExit as leaving:
        status = CLOSED if isinstance(leaving.__context__, BrokenPipeError) else leaving.code
        raise SystemExit(_flush(status)) from None
    except OSError as error:  # a message could not be written
        raise SystemExit(FAILED) from error


def _flush(status: Any) -> Any:
    """Flush standard output; return the final status."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):  # discard what is left in the buffer
            _to_null(sys.stdout.fileno(), os.O_WRONLY)
        expected = ending(error)
        if expected is None:
            return status or FAILED
        if not status and expected[1]:
            report(f"clearhead: {expected[1]}")
        return status or expected[0]
    return status
