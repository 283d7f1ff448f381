"""Fresh interpreters that have imported torch, and nothing of ours: forks of one, for each start takes two seconds.

A test that needs torch itself unimported, or imported after something else, starts a process of its own.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

# A fork leaves the loop and runs the program as `python -c` would: with its own end, exit status and atexit functions.
_SERVER = """
import json, os, sys
import torch
asked = None
for line in sys.stdin:
    if asked := os.fork() == 0 and json.loads(line):
        break
    _, status = os.wait()
    print(os.waitstatus_to_exitcode(status), flush=True)
if asked:
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, asked["out"], os.O_WRONLY), (2, asked["err"], os.O_WRONLY)):
        os.dup2(os.open(path, flags), number)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["-c", *asked["arguments"]]
    exec(compile(asked["program"], "<string>", "exec"), {"__name__": "__main__"})
"""


@cache
def _server(process: int) -> "subprocess.Popen[str]":
    server = subprocess.Popen([sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(lambda: os.getpid() == process and server.communicate())  # it ends with its input
    return server


def run(
    program: str, *arguments: object, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a program as `python -c program arguments` does, where torch is imported already.

    Args:
        folder: where it runs; default here.
        environment: variables besides those of this process.
    """
    server = _server(os.getpid())
    with tempfile.TemporaryDirectory() as kept:
        out, err = Path(kept) / "out", Path(kept) / "err"
        out.touch()
        err.touch()
        request = {
            "program": program, "arguments": list(map(str, arguments)), "folder": str(folder or Path.cwd()),
            "environment": {**os.environ, **(environment or {})}, "out": str(out), "err": str(err),
        }  # fmt: skip
        print(json.dumps(request), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(program, status, out.read_text(), err.read_text())


def answer(program: str) -> str:
    """What such a program prints, without the last line's end."""
    done = run(program)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
