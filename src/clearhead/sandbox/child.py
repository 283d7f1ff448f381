"""Inside the confined process: read the job, confine, run the chunks in one namespace, report.

File descriptors, laid out by whoever started the process: 0 stdin, 1 stdout, 2 stderr, JOB to read the job from,
REPORT to write the report to, CHANNEL to the other process of a test (only then).
"""

import json
import os
import random
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clearhead.sandbox.confine import confine
from clearhead.sandbox.limits import Limits

JOB, REPORT, CHANNEL = 3, 4, 5
MOST_TEXT = 20_000  # characters of one value in a report


def main(*, files: bool = True) -> None:
    """Run the job and end the process; never returns. Exit status 81: it could not be confined, nothing was run."""
    with os.fdopen(JOB, "rb") as pipe:
        job: dict[str, Any] = json.loads(pipe.read())
    limits = Limits(**job["limits"])
    folder = Path(job["folder"]) if job["folder"] else None
    if folder:
        os.chdir(folder)
    _streams()
    try:
        if job["confined"]:
            confine(limits, folder, files=files)
    except OSError as error:
        os.write(2, f"cannot confine: {error}".encode())
        os._exit(81)
    _shuffle(job["salt"])
    _finish(run_chunks(job["chunks"], job["want"]))


def _streams() -> None:
    """Fresh text streams over 0, 1 and 2: the worker's own are shared with nobody."""
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def _shuffle(salt: int) -> None:
    """Seed the unseeded differently in each run, so that two runs of a program that forgot its seed disagree."""
    random.seed(salt)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(salt)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(salt)


def run_chunks(chunks: Sequence[Mapping[str, Any]], want: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Run the chunks; return {"raised": …} or {"values": …}. Always returns, whatever the program raises."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    raised = execute(module.__dict__, chunks)
    values = {}
    for name, spec in want:
        if name in module.__dict__:
            try:
                values[f"{name}:{spec}" if spec else name] = text_of(module.__dict__[name], spec)[:MOST_TEXT]
            except Exception as error:  # noqa: BLE001 — a value's own __format__ may raise anything; it is reported
                raised = raised or {**_raised(error, chunks, len(chunks) - 1), "file": "", "line": None}
    return {"raised": raised, "values": values}


def execute(namespace: dict[str, Any], chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Run the chunks in `namespace`; None, or a description of the exception that was let through."""
    for number, chunk in enumerate(chunks):
        try:
            # Blank lines above it give every traceback the line of the author's file.
            code = compile("\n" * (chunk["line"] - 1) + chunk["source"], chunk["file"], "exec", dont_inherit=True)
            exec(code, namespace)  # noqa: S102 — running it is what this process is for
        except SystemExit as error:
            if error.code not in (None, 0):
                return _raised(error, chunks, number)
        except BaseException as error:  # noqa: BLE001 — whatever it is, it is reported
            return _raised(error, chunks, number)
    return None


def _raised(error: BaseException, chunks: Sequence[Mapping[str, Any]], number: int) -> dict[str, Any]:
    names = {chunk["file"] for chunk in chunks}
    file, line = "", None
    if isinstance(error, SyntaxError) and error.filename in names:
        file, line = error.filename or "", error.lineno
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in names:
            file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
    kinds = [kind.__name__ for kind in type(error).__mro__ if kind is not object]
    message = str(error.msg) if isinstance(error, SyntaxError) else str(error)
    return {
        "type": type(error).__name__, "message": message[:MOST_TEXT], "file": file, "line": line, "chunk": number,
        "kinds": kinds,
    }  # fmt: skip


def text_of(value: object, spec: str = "") -> str:
    """A value as prose shows it: 6 significant digits unless `spec` says otherwise; tensors as nested lists.

    >>> text_of(0.1 + 0.2), text_of([1 / 3, 2]), text_of(True), text_of(2 / 3, ".2f")
    ('0.3', '[0.333333, 2]', 'True', '0.67')
    """
    listed = getattr(value, "tolist", None)
    if callable(listed) and not isinstance(value, type):
        value = listed()
    if isinstance(value, (list, tuple)) and type(value).__repr__ in (list.__repr__, tuple.__repr__):
        inside = ", ".join(text_of(one, spec) for one in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    if isinstance(value, float) and not spec:
        return format(value, ".6g")
    return format(value, spec) if spec else str(value)


def _finish(report: dict[str, Any]) -> None:
    """Flush, write the report, and leave without running anything the program left behind."""
    code = 1 if report.get("raised") else 0
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            code = 1
    data = json.dumps(report).encode()
    while data:
        data = data[os.write(REPORT, data) :]
    os._exit(code)


if __name__ == "__main__":
    main(files="--no-landlock" not in sys.argv)
