"""Bubblewrap: namespaces in place of Landlock, for kernels without it. Each program starts cold, alone in its own.

It sees the interpreter, the installed packages and its own folder, under a root of its own that holds nothing else and
is read-only; it has no network and its own process ids. The system call filter and the limits of memory and time are
the same as everywhere.
"""

import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from clearhead.errors import SandboxError
from clearhead.sandbox import seccomp
from clearhead.sandbox.confine import readable

START = 30.0  # seconds a cold interpreter may take to import what a program wants, on top of the program's own time


@cache
def works() -> bool:
    """Whether bubblewrap is installed and may make namespaces here."""
    program = shutil.which("bwrap")
    if program is None or not seccomp.supported():
        return False
    try:
        tried = subprocess.run(
            [program, "--unshare-all", "--ro-bind", "/", "/", "true"], capture_output=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


class Cold:
    """Starts each program under bubblewrap. The same interface as `pool.Worker`."""

    overhead = START

    def __init__(self, preload: Sequence[str] = (), hash_seed: int = 1) -> None:
        self.preload, self.hash_seed = tuple(preload), hash_seed

    def launch(self, descriptors: Sequence[int], folder: Path) -> None:
        """Start one program with these descriptors (reply, 0, 1, 2, job, report[, channel]) and this folder."""
        given = [os.dup(one) for one in descriptors[1:]]
        try:
            process = subprocess.Popen(
                [*self._command(folder), sys.executable, "-P", "-s", "-c", self._boot(given)],
                pass_fds=given, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=given[2], cwd=folder,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise SandboxError(f"bubblewrap did not start: {error}") from None
        finally:
            for one in given:
                os.close(one)
        reply = socket.socket(fileno=os.dup(descriptors[0]))
        threading.Thread(target=_report, args=(process, reply), daemon=True).start()

    def _command(self, folder: Path) -> list[str]:
        from clearhead.sandbox.pool import clean_environment

        command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--as-pid-1"]
        command += ["--cap-drop", "ALL", "--clearenv"]
        for name, value in clean_environment(folder, self.hash_seed).items():
            command += ["--setenv", name, value]
        command += ["--proc", "/proc", "--dev", "/dev"]
        shown = {
            Path(sys.executable).parent,
            Path(os.path.realpath(sys.executable)).parent,
            Path(sys.prefix) / "pyvenv.cfg",
        }
        for path in sorted({*readable(), *shown}):
            if path.exists() and not str(path).startswith("/dev/"):
                command += ["--ro-bind", str(path), str(path)]
        # Its root and /tmp are its own, empty but for these paths, and read-only: the folder is all it can write.
        command += ["--bind", str(folder), str(folder), "--remount-ro", "/dev", "--remount-ro", "/"]
        return [*command, "--chdir", str(folder)]

    def _boot(self, given: Sequence[int]) -> str:
        paths = [path for path in sys.path if path]
        return f"""
import os, sys
sys.path += [path for path in {paths!r} if path not in sys.path]
high = [os.dup2(one, 100 + at) for at, one in enumerate({list(given)!r})]
for at, one in enumerate(high):
    os.dup2(one, at)
os.closerange(len(high), 4096)
from clearhead.sandbox import child, judging, worker
worker.prepare({list(self.preload)!r})
child.main(files=False)
"""


def _report(process: "subprocess.Popen[bytes]", reply: socket.socket) -> None:
    """Say the process id, wait, and say the status, as a warm worker does."""
    with reply:
        try:
            reply.sendall(struct.pack("q", process.pid))
            code = process.wait()
            # bubblewrap says 128 + signal where its child was killed by one
            reply.sendall(struct.pack("q", -code if code < 0 else code - 128 if code > 128 else code << 8))
        except OSError:
            process.kill()
            process.wait()
