"""Inside the confined process: read the job, confine, run the chunks in one namespace, report.

File descriptors, laid out by the parent process: 0 stdin, 1 stdout, 2 stderr, JOB to read the job from,
REPORT to write the report to, CHANNEL to the other process of a test (only then).
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from clearhead.sandbox.child import batch, event_loops, judging, reset
from clearhead.sandbox.child.execution import JOB, REPORT, STARTED, run_chunks
from clearhead.sandbox.confinement import grants, tmpfs
from clearhead.sandbox.confinement.confine import confine
from clearhead.sandbox.limits import Limits


def main(*, files: bool = True) -> NoReturn:
    """Run the job and end the process; never returns. Exit status 81: confinement failed and nothing was run.

    `files=False`: the back end that started this process already hides files and provides the folder.
    """
    with os.fdopen(JOB, "rb") as pipe:
        job: dict[str, Any] = json.loads(pipe.read())
    limits = Limits(**job["limits"])
    folder = Path(job["folder"])
    os.environ.update(HOME=str(folder), TMPDIR=str(folder), MPLCONFIGDIR=str(folder))
    reset.streams()
    reset.temporary_folder()
    reset.breakpoints()
    event_loops.wake_by_pipes()
    private = [Path(path) for path in job["hidden"]]
    try:
        if job["confined"] and files and job["tmpfs"] and limits.disk:
            tmpfs.own(folder, limits.disk)
        os.chdir(folder)
        tmpfs.fill(folder, job["files"])
        if job["confined"]:
            confine(limits, folder, files=files, private=private)
    except OSError as error:
        os.write(2, f"cannot confine: {error}".encode())
        os._exit(81)
    sys.path[:] = [folder for folder in sys.path if _may_be_searched(folder, private)]
    os.write(REPORT, STARTED)
    reset.shuffle(job["salt"])
    chunks, salt = job["chunks"], job["salt"]
    roles: dict[str, Callable[[], dict[str, Any]]] = {
        "program": lambda: run_chunks(chunks, job["want"]),
        "learner": lambda: judging.serve(chunks),
        "tests": lambda: judging.examine(chunks),
        "programs": lambda: batch.run(chunks, job["mark"], salt),
        "learners": lambda: batch.serve(chunks, salt),
        "tests of each": lambda: batch.examine(chunks, salt),
    }
    _finish(roles[job["role"]]())


def _may_be_searched(folder: str, private: Sequence[Path]) -> bool:
    """Return whether imports may search this folder. In a folder that is wholly private, every import would fail.

    A library that looks for an optional package expects ImportError, not the PermissionError of such a folder. A partly
    private folder may be searched: the worker has already listed it (worker.py), and granted files can be read.
    """
    try:
        os.close(os.open(folder or ".", os.O_RDONLY | os.O_CLOEXEC))
    except PermissionError:
        real = Path(os.path.realpath(folder))
        return any(real in path.parents for path in grants.readable(private))
    except OSError:
        pass  # it does not exist; imports skip such folders
    return True


def _finish(report: dict[str, Any]) -> NoReturn:
    """Flush, write the report, and exit without running exit handlers or finalizers of the program."""
    code = 1 if report.get("raised") else 0
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            code = 1
    data = json.dumps(report).encode()
    try:
        while data:
            data = data[os.write(REPORT, data) :]
    except OSError:  # the program closed the descriptor, so there is no report
        code = 1
    os._exit(code)


if __name__ == "__main__":
    main(files="--no-landlock" not in sys.argv)
