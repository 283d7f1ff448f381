"""Run chunks of Python in one namespace and return the result as JSON types."""

import errno
import linecache
import sys
import types
from collections.abc import Mapping, Sequence
from functools import cache
from types import CodeType
from typing import Any

from clearhead.sandbox.limits import value_key

JOB, REPORT, CHANNEL = 3, 4, 5  # file descriptors of a child, beside stdin, stdout and stderr
STARTED = b"\x06"  # the first byte of a report, written before the program is read
MOST_TEXT = 100_000  # characters of one value or message in a report
_CONFINED = (
    "Programs run confined here: they have no other processes and no network, and only files below their own folder."
)
MOST_NAME, MOST_KINDS = 200, 50  # characters of a class's name; reported base classes of an exception


def run_chunks(chunks: Sequence[Mapping[str, Any]], want: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Run the chunks; return {"raised": …} or {"values": …}. Always returns, whatever the program raises."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    raised = execute(module.__dict__, chunks)
    values = {}
    for name, spec in want:
        if name in module.__dict__:
            try:
                values[value_key(name, spec)] = text_of(module.__dict__[name], spec)[:MOST_TEXT]
            except BaseException as error:  # noqa: BLE001 — a value's own __format__ may raise anything; it is reported
                raised = raised or {**describe(error, chunks, len(chunks) - 1), "file": "", "line": None}
    return {"raised": raised, "values": values}


def execute(namespace: dict[str, Any], chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Run the chunks in `namespace`. Return None, or a description of an uncaught exception."""
    for file in {chunk["file"] for chunk in chunks}:
        linecache.cache.pop(file, None)  # of the program before this one in a batch
    for number, chunk in enumerate(chunks):
        _show_source(**chunk)
        namespace["__file__"] = chunk["file"]  # `inspect` finds a class by the file of its module
        try:
            exec(_compiled(**chunk), namespace)  # noqa: S102 — running it is what this process is for
        except SystemExit as error:
            if error.code not in (None, 0):
                return describe(error, chunks, number)
        except BaseException as error:  # noqa: BLE001 — whatever it is, it is reported
            return describe(error, chunks, number)
    return None


def _show_source(source: str, file: str, line: int) -> None:
    """Let tracebacks, `inspect.getsource` and `torch.jit.script` read the chunk, which is in no file on disk."""
    held = linecache.cache.get(file)
    lines = list(held[2]) if held and len(held) == 4 else []
    lines += ["\n"] * (line - 1 - len(lines))
    own = [f"{text}\n" for text in source.removeprefix("\ufeff").split("\n")]
    lines[line - 1 : line - 1 + len(own)] = own
    linecache.cache[file] = (len(source), None, lines, file)  # a time of None: never compared with a file on disk


@cache
def _compiled(source: str, file: str, line: int) -> CodeType:
    """Compile a chunk, cached for all programs of a batch. Blank lines in front give tracebacks the author's line.

    Some editors begin a file with a byte order mark, which is a part of no program.
    """
    return compile("\n" * (line - 1) + source.removeprefix("\ufeff"), file, "exec", dont_inherit=True)


def describe(error: BaseException, chunks: Sequence[Mapping[str, Any]], number: int) -> dict[str, Any]:
    """Return the exception as JSON types; `line` is the deepest traceback line inside a chunk."""
    names = {chunk["file"] for chunk in chunks}
    file, line = "", None
    if isinstance(error, SyntaxError) and isinstance(error.filename, str) and error.filename in names:
        file, line = error.filename, error.lineno if isinstance(error.lineno, int) and error.lineno > 0 else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in names:
            file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
    kinds = [_name_of(kind) for kind in type(error).__mro__ if kind is not object]
    try:
        message = str(error.msg) if isinstance(error, SyntaxError) else str(error)
    except BaseException as other:  # noqa: BLE001 — a program's own __str__ may raise anything
        message = f"<its text raises {_name_of(type(other))}>"
    if type(error) is PermissionError and error.errno in (errno.EPERM, errno.EACCES):
        message = f"{message}. {_CONFINED}"
    return {
        "type": _name_of(type(error)), "message": message[:MOST_TEXT], "file": file, "line": line, "chunk": number,
        "kinds": kinds[:MOST_KINDS],
    }  # fmt: skip


def _name_of(kind: type) -> str:
    """Return the name of a class; a metaclass of the program may have made it anything."""
    return str(type.__dict__["__name__"].__get__(kind))[:MOST_NAME]


def text_of(value: object, spec: str = "") -> str:
    """Return a value as text for prose: 6 significant digits unless `spec` says otherwise, tensors as nested lists.

    >>> text_of(0.1 + 0.2), text_of([1 / 3, 2]), text_of(True), text_of(2 / 3, ".2f")
    ('0.3', '[0.333333, 2]', 'True', '0.67')
    """
    listed = getattr(value, "tolist", None)
    if callable(listed) and not isinstance(value, type):
        value = listed()
    if isinstance(value, (list, tuple)) and type(value).__repr__ in (list.__repr__, tuple.__repr__):
        inside = ", ".join(text_of(item, spec) for item in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    if isinstance(value, float) and not spec:
        return format(value, ".6g")
    return format(value, spec) if spec else str(value)
