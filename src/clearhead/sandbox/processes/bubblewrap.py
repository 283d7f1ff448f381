"""Confine programs with bubblewrap's namespaces, for kernels without Landlock. Each program starts cold.

A program sees the interpreter, the installed packages and its own folder, under a separate root that holds nothing else
and is read-only, as is its /proc. There is no /dev and no /sys; it has no network, and its own process ids. The system
call filter and the limits of memory and time are the same as with Landlock.

An ordinary user gets a user namespace. Root would still be root in one, and own the files of /proc/sys. So a program of
root's becomes user 65534 before anything else is imported; if that fails, nothing runs.
"""

import json
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
from clearhead.sandbox.confinement import grants, priority, seccomp, tmpfs

START = 30.0  # seconds for a cold interpreter to import what a program needs, on top of the program's own time
_TRIAL = 30.0


def works() -> bool:
    """Return whether bubblewrap is installed and may create namespaces here."""
    return unusable() is None


@cache
def unusable() -> str | None:
    """Return why bubblewrap cannot be used here; None if it can."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    if not seccomp.supported():
        return "the system call filter does not know this machine"
    command = [
        *_command(None, 0, {}),
        sys.executable,
        "-P",
        "-s",
        "-c",
        _boot("print(os.geteuid(), open(os.__file__).read(1))"),
    ]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=_TRIAL, cwd="/")
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap did not start: {error}"
    if tried.returncode == 0 and not tried.stdout.startswith("0 "):
        return None
    problem = (tried.stderr.strip().splitlines() or ["no message"])[-1]
    if os.geteuid() == 0:
        why = "bubblewrap cannot run root's programs as an unprivileged user here"
        return f"{why} ({problem}); run clearhead as an ordinary user"
    return f"bubblewrap may make no namespaces ({problem})"


@cache
def limits_tmpfs() -> bool:
    """Return whether this bubblewrap can limit the size of a tmpfs, as 0.7 and later can."""
    help_text = subprocess.run(["bwrap", "--help"], capture_output=True, text=True, timeout=_TRIAL)
    return "--size" in help_text.stdout and "--perms" in help_text.stdout


class Cold:
    """Starts each program under bubblewrap. The same interface as `pool.Worker`."""

    overhead = START
    lost = False

    def __init__(self, preload: Sequence[str] = (), hash_seed: int = 1) -> None:
        self.preload, self.hash_seed = tuple(preload), hash_seed

    def launch(self, descriptors: Sequence[int], folder: Path, size: int) -> None:
        """Start one program with these descriptors (reply, 0, 1, 2, job, report[, channel]) and this folder.

        `size`: bytes that its folder may hold; with 0 it stays an ordinary folder.
        """
        from clearhead.sandbox.processes.pool import clean_environment

        given = [os.dup(descriptor) for descriptor in descriptors[1:]]
        info_read, info = os.pipe()
        randomness = _random_bytes()
        command = _command(folder, size, clean_environment(folder, self.hash_seed), randomness)
        try:
            if os.geteuid() == 0:
                os.chown(folder, tmpfs.NOBODY, tmpfs.NOBODY)  # where it is not a tmpfs, the program writes there
            process = subprocess.Popen(
                [*command, "--info-fd", str(info), sys.executable, "-P", "-s", "-c", _boot(self._main(given))],
                pass_fds=[*given, info, randomness],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=given[2],
                cwd=folder, start_new_session=True,  # so no terminal controls it
            )  # fmt: skip
        except OSError as error:
            os.close(info_read)
            raise SandboxError(f"bubblewrap did not start: {error}") from None
        finally:
            for descriptor in (*given, info, randomness):
                os.close(descriptor)
        reply = socket.socket(fileno=os.dup(descriptors[0]))
        threading.Thread(target=_report, args=(process, reply, info_read), daemon=True).start()

    def _main(self, given: Sequence[int]) -> str:
        return f"""
import fcntl
given = {list(given)!r}
high = [fcntl.fcntl(number, fcntl.F_DUPFD, len(given)) for number in given]  # free numbers: none is overwritten
for at, number in enumerate(high):
    os.dup2(number, at)
os.closerange(len(high), 4096)
if {priority.is_low()}:
    from clearhead.sandbox.confinement import priority
    priority.lower()
from clearhead.sandbox.child import confined, judging, worker
worker.prepare({list(self.preload)!r})
confined.main(files=False)
"""


def _boot(then: str) -> str:
    """Return Python code that sets up this process's import path, gives up root if it has it, and runs `then`."""
    paths = [path for path in sys.path if path]
    become = "from clearhead.sandbox.confinement import tmpfs\ntmpfs.become_nobody()\n" if os.geteuid() == 0 else ""
    return f"import os, sys\nsys.path += [path for path in {paths!r} if path not in sys.path]\n{become}{then}"


def _random_bytes() -> int:
    """Open a file of random bytes to mount at /dev/urandom, from which torch reads while it is imported.

    The device itself would be writable: a read-only mount protects files, not devices.
    """
    file = os.memfd_create("random")
    os.write(file, os.urandom(4096))
    os.lseek(file, 0, os.SEEK_SET)
    return file


def _command(folder: Path | None, size: int, environment: dict[str, str], randomness: int | None = None) -> list[str]:
    command = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    command += ["--die-with-parent", "--as-pid-1", "--clearenv", "--cap-drop", "ALL"]
    if os.geteuid() == 0:  # needed to become another user, which then drops them
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command.append("--unshare-user")
    for name, value in environment.items():
        command += ["--setenv", name, value]
    granted = [path for path in grants.readable(grants.hidden()) if path.parts[1:2] != ("dev",)]
    shown = {
        Path(sys.executable).parent,
        Path(os.path.realpath(sys.executable)).parent,
        Path(sys.prefix) / "pyvenv.cfg",
    }
    links = grants.links(granted)
    bound = sorted({*granted, *shown})
    parents = {parent for path in (*bound, *([folder] if folder else [])) for parent in path.parents[:-1]}
    for parent in sorted(parents):
        if parent not in links and not grants.inside(parent, granted):
            command += ["--dir", str(parent)]  # with mode 0755, whatever its mode outside
    if randomness is not None:
        command += ["--dir", "/dev", "--file", str(randomness), "/dev/urandom"]
    for path in bound:
        if path in links:
            command += ["--symlink", str(links[path]), str(path)]
        elif os.path.exists(path):  # noqa: PTH110 — Path.exists raises where a folder above is closed to this user
            command += ["--ro-bind", str(path), str(path)]
    for link in links.keys() - set(granted):
        command += ["--symlink", str(links[link]), str(link)]
    # The root and /tmp hold only these paths and are read-only, so the program can write only to its folder.
    command += ["--proc", "/proc", "--remount-ro", "/proc"]
    if folder and size and limits_tmpfs():
        command += ["--perms", "0777", "--size", str(tmpfs.pages(size) * tmpfs.PAGE), "--tmpfs", str(folder)]
    elif folder:
        command += ["--bind", str(folder), str(folder)]
    return [*command, "--remount-ro", "/", "--chdir", "/"]  # the process itself goes to its folder


def _report(process: "subprocess.Popen[bytes]", reply: socket.socket, info_read: int) -> None:
    """Send the process id, wait, and send the status, as a warm worker does."""
    with reply:
        try:
            reply.sendall(struct.pack("q", _inner(info_read) or process.pid))
            if priority.is_low():
                priority.lower_session(process.pid)
            code = process.wait()
            # bubblewrap exits with 128 + signal if its child was killed by a signal
            reply.sendall(struct.pack("q", -code if code < 0 else code - 128 if code > 128 else code << 8))
        except OSError:
            process.kill()
            process.wait()


def _inner(info_read: int) -> int | None:
    """Return the outer pid of the confined process. bubblewrap reports it before the process starts."""
    data = b""
    with os.fdopen(info_read, "rb", buffering=0) as pipe:
        while not data.rstrip().endswith(b"}") and (part := pipe.read(4096)):
            data += part
    try:
        return int(json.loads(data)["child-pid"])
    except (ValueError, KeyError):
        return None
