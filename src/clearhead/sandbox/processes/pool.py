"""Start warm workers, which fork a child for each program."""

import atexit
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from clearhead import scratch
from clearhead.errors import SandboxError
from clearhead.sandbox.confinement import priority

_START = 120.0  # seconds a worker may take to import what it preloads


class Worker:
    """A warm interpreter. Two workers with different `hash_seed`s reveal programs that depend on the order of a set."""

    overhead = 0.0  # it is warm
    lost = False

    def __init__(self, preload: Sequence[str] = (), hash_seed: int = 1) -> None:
        ours, theirs = socket.socketpair()
        self._socket, self._lock = ours, threading.Lock()
        self.home = scratch.folder("worker-")
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-c", _boot(theirs.fileno(), preload)],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, cwd=self.home, env=clean_environment(self.home, hash_seed),
                start_new_session=True,
            )  # fmt: skip
        self._ready = False

    def wait_ready(self) -> None:
        """Wait until the worker is ready. Raises SandboxError with its error output if it fails to start."""
        with self._lock:
            if self._ready:
                return
            self._socket.settimeout(_START)
            try:
                self._ready = self._socket.recv(1) == b"R"
            except OSError:
                self._ready = False
            if not self._ready:
                self.process.kill()
                words = (self.process.stderr.read() if self.process.stderr else b"").decode(errors="replace")
                raise SandboxError(f"the sandbox's worker did not start: {words.strip()[-500:] or 'no message'}")

    @property
    def alive(self) -> bool:
        """Return whether it can still take jobs.

        When a worker is killed, its programs end first, then its socket closes, and its process ends last.
        """
        poller = select.poll()
        poller.register(self._socket, 0)  # 0: only for a hang-up, which is always reported
        return not self.lost and self.process.poll() is None and not poller.poll(0)

    def launch(self, descriptors: Sequence[int], folder: Path, size: int) -> None:
        """Ask for one child that holds these descriptors (reply, 0, 1, 2, job, report[, channel]).

        The child reads its folder and the folder's size from its job.
        """
        self.wait_ready()
        with self._lock:
            socket.send_fds(self._socket, [b"J"], list(descriptors))

    def close(self) -> None:
        """End the worker and all its children."""
        self._socket.close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()
        scratch.remove(self.home)


def _boot(descriptor: int, preload: Sequence[str]) -> str:
    """Return the worker's first lines, which set this process's import path: the environment carries none."""
    return f"""
import os, sys
sys.path += [path for path in {[path for path in sys.path if path]!r} if path not in sys.path]
if {descriptor} != 3:
    os.dup2({descriptor}, 3)
    os.close({descriptor})
from clearhead.sandbox.child import worker
worker.main({list(preload)!r}, low={priority.is_low()})
"""


def clean_environment(home: Path, hash_seed: int = 1) -> dict[str, str]:
    """Return an environment without the caller's variables, so that it holds no secrets and is always the same."""
    return {
        "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(home), "TMPDIR": str(home), "TZ": "UTC",
        "PYTHONHASHSEED": str(hash_seed), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1", "MPLBACKEND": "svg", "MPLCONFIGDIR": str(home), "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip


_workers: dict[tuple[tuple[str, ...], int], Worker] = {}
_workers_lock = threading.Lock()


def worker(preload: Sequence[str] = (), hash_seed: int = 1) -> Worker:
    """Return the worker for this preload and hash seed, starting it if necessary. It lives as long as this process."""
    key = (tuple(preload), hash_seed)
    with _workers_lock:
        running = _workers.get(key)
        if running is None or not running.alive:
            if running is not None:
                running.close()
            running = _workers[key] = Worker(*key)
        return running


@atexit.register
def close_all() -> None:
    """End every worker of this process."""
    with _workers_lock:
        while _workers:
            _workers.popitem()[1].close()
