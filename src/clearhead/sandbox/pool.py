"""Start warm workers and watch the children they fork: time, memory, output, disk."""

import atexit
import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clearhead import scratch
from clearhead.errors import SandboxError
from clearhead.sandbox.bubblewrap import Cold
from clearhead.sandbox.limits import Chunk, Limits, Outcome, Program, Raised, Tested, no_memory

_TICK = 0.02  # seconds between looks at a child's memory and disk
_START = 120.0  # seconds a worker may take to import what it preloads


class Worker:
    """One warm interpreter. Two with different `hash_seed`s show whether a program depends on the order of a set."""

    overhead = 0.0  # seconds a program may take to start, on top of its own: it is warm

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
        """Return when it can take a job. Raises SandboxError, with its last words, if it never can."""
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
        """Whether it can still take jobs."""
        return self.process.poll() is None

    def launch(self, descriptors: Sequence[int], folder: Path) -> None:
        """Ask for one child that holds these descriptors (reply, 0, 1, 2, job, report[, channel])."""
        self.wait_ready()
        with self._lock:
            socket.send_fds(self._socket, [b"J"], list(descriptors))

    def close(self) -> None:
        """End it and every child it has."""
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
    """The worker's first lines. It finds modules where this process does: its environment carries no paths."""
    return f"""
import os, sys
sys.path += [path for path in {[path for path in sys.path if path]!r} if path not in sys.path]
if {descriptor} != 3:
    os.dup2({descriptor}, 3)
    os.close({descriptor})
from clearhead.sandbox import worker
worker.main({list(preload)!r})
"""


def clean_environment(home: Path, hash_seed: int = 1) -> dict[str, str]:
    """Nothing of the caller's environment: no secrets to find, and the same for everyone."""
    return {
        "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(home), "TMPDIR": str(home), "TZ": "UTC",
        "PYTHONHASHSEED": str(hash_seed), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1", "MPLBACKEND": "svg", "MPLCONFIGDIR": str(home), "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip


_workers: dict[tuple[tuple[str, ...], int], Worker] = {}
_workers_lock = threading.Lock()


def worker(preload: Sequence[str] = (), hash_seed: int = 1) -> Worker:
    """The worker for this preload and hash seed, started if need be. It lives as long as this process."""
    key = (tuple(preload), hash_seed)
    with _workers_lock:
        found = _workers.get(key)
        if found is None or not found.alive:
            if found is not None:
                found.close()
            found = _workers[key] = Worker(*key)
        return found


@atexit.register
def close_all() -> None:
    """End every worker of this process."""
    with _workers_lock:
        while _workers:
            _workers.popitem()[1].close()


class Running:
    """One child, from launch to outcome. Use `finish`."""

    def __init__(
        self, chunks: Sequence[Chunk] | Sequence[Program], *, limits: Limits, stdin: str,
        files: Sequence[tuple[str, bytes]], want: Sequence[tuple[str, str]], salt: int, role: str = "program",
        channel: int | None = None, confined: bool = True, mark: str = "", turn: float | None = None,
    ) -> None:  # fmt: skip
        self.limits, self.channel = limits, channel
        self.mark, self.turn = mark.encode(), turn  # of a batch: what ends a program's turn, and how long one may be
        self.folder = scratch.folder("run-")
        for name, data in files:
            _place(self.folder, name, data)
        self.job = json.dumps({
            "chunks": [asdict(chunk) for chunk in chunks], "limits": asdict(limits), "folder": str(self.folder),
            "want": [list(pair) for pair in want], "salt": salt, "role": role, "confined": confined,
            "mark": mark,
        }).encode()  # fmt: skip
        self.stdin = stdin.encode()
        self.started = self.turned = time.monotonic()
        self.buffers: dict[int, bytearray] = {}
        self.stopped: str | None = None
        self.each: Sequence[Mapping[str, Any]] = ()

    def launch(self, worker: "Worker | Cold") -> None:
        """Hand the child its descriptors; keep our ends."""
        self.seconds = self.limits.seconds + worker.overhead
        pipes = [os.pipe() for _ in range(5)]  # stdin, stdout, stderr, job, report
        reply, theirs = socket.socketpair()
        give = [pipes[0][0], pipes[1][1], pipes[2][1], pipes[3][0], pipes[4][1]]
        keep = [pipes[0][1], pipes[1][0], pipes[2][0], pipes[3][1], pipes[4][0]]
        extra = [] if self.channel is None else [self.channel]
        try:
            worker.launch([theirs.fileno(), *give, *extra], self.folder)
        except (OSError, SandboxError):
            for one in keep:
                os.close(one)
            reply.close()
            scratch.remove(self.folder)
            raise
        finally:
            theirs.close()
            for one in give:
                os.close(one)
        self.reply = reply
        self.writes = {keep[0]: self.stdin, keep[3]: self.job}
        self.out, self.err, self.report = keep[1], keep[2], keep[4]
        self.buffers = {one: bytearray() for one in (self.out, self.err, self.report)}

    def finish(self) -> Outcome:
        """Watch the child to its end, stopping it at a limit; return what came of it."""
        try:
            status = self._watch()
        finally:
            for one in (*self.writes, *self.buffers):
                with contextlib.suppress(OSError):
                    os.close(one)
            self.reply.close()
            scratch.remove(self.folder)
        return self._outcome(status)

    def _watch(self) -> int | None:
        pid = _number(self.reply, 30.0)
        if pid is None:
            self.stopped = "start"
            return None
        self.started = self.turned = time.monotonic()
        base = _resident(pid) or 0
        poller = select.poll()
        poller.register(self.reply, select.POLLIN | select.POLLHUP)
        for one in self.buffers:
            poller.register(one, select.POLLIN | select.POLLHUP)
        for one in self.writes:
            os.set_blocking(one, False)
            poller.register(one, select.POLLOUT | select.POLLERR)
        last_look = self.started
        while True:
            for descriptor, event in poller.poll(_TICK * 1000):
                if descriptor == self.reply.fileno():
                    status = _number(self.reply, 5.0)
                    self._drain()
                    return status
                self._serve(poller, descriptor, event)
            now = time.monotonic()
            if self.stopped is None:
                self.stopped = self._over(pid, base, now, look=now - last_look >= _TICK)
                if self.stopped:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, 9)  # still ours to name: the worker has not reported it ended
            if now - last_look >= _TICK:
                last_look = now
            if self.stopped and now - self.started > self.seconds + 30:
                return None

    def _serve(self, poller: "select.poll", descriptor: int, event: int) -> None:
        if descriptor in self.writes:
            try:
                sent = os.write(descriptor, self.writes[descriptor][:65536]) if self.writes[descriptor] else 0
                self.writes[descriptor] = self.writes[descriptor][sent:]
            except BlockingIOError:
                return
            except BrokenPipeError:
                self.writes[descriptor] = b""
            if not self.writes[descriptor]:
                poller.unregister(descriptor)
                os.close(descriptor)
                del self.writes[descriptor]
            return
        data = os.read(descriptor, 65536)
        if data:
            self.buffers[descriptor] += data
            if self.mark and self.mark in data:
                self.turned = time.monotonic()
        elif event:
            poller.unregister(descriptor)

    def _drain(self) -> None:
        """Read what the child left in its pipes. Nobody else holds their other ends, so this cannot hang."""
        for descriptor, buffer in self.buffers.items():
            os.set_blocking(descriptor, False)
            with contextlib.suppress(BlockingIOError):
                while len(buffer) <= self.limits.output and (data := os.read(descriptor, 65536)):
                    buffer += data
        if self.stopped is None and sum(map(len, self.buffers.values())) > self.limits.output:
            self.stopped = "output"

    def _over(self, pid: int, base: int, now: float, look: bool) -> str | None:
        if now - self.started > self.seconds or (self.turn is not None and now - self.turned > self.turn):
            return "time"
        if sum(map(len, self.buffers.values())) > self.limits.output:
            return "output"
        if look and (_resident(pid) or 0) - base > self.limits.memory:
            return "memory"
        if look and self.limits.disk and _used(self.folder) > self.limits.disk:
            return "disk"
        return None

    def _outcome(self, status: int | None) -> Outcome:
        code = -9 if status is None else os.waitstatus_to_exitcode(status)
        texts = {name: bytes(self.buffers[at][: self.limits.output]).decode(errors="replace") for name, at in
                 (("out", self.out), ("err", self.err), ("report", self.report))}  # fmt: skip
        report = _parsed(texts["report"])
        found = report.get("raised")
        raised = Raised(**{**found, "kinds": tuple(found["kinds"])}) if found else None
        stopped = self.stopped
        if stopped is None and code in (81, 82):
            stopped = "start"
        elif stopped is None and code in (-24, -9):  # SIGXCPU, or a kill that was not ours: of the kernel's own accord
            late = time.monotonic() - self.started >= self.limits.seconds
            stopped = "time" if code == -24 or late else "memory"
        elif stopped is None and raised and no_memory(raised):
            stopped = "memory"
        seconds = time.monotonic() - self.started
        tests = tuple(Tested(*one) for one in report.get("tests", ()))
        self.each = report.get("each", ())
        return Outcome(texts["out"], texts["err"], code, stopped, seconds, raised, report.get("values", {}), tests)


def _place(folder: Path, name: str, data: bytes) -> None:
    target = (folder / name).resolve()
    if folder.resolve() not in target.parents:
        raise SandboxError(f"file name {name!r} leads outside the program's folder; use a plain name")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def _number(reply: socket.socket, timeout: float) -> int | None:
    reply.settimeout(timeout)
    try:
        data = reply.recv(8, socket.MSG_WAITALL)
    except OSError:
        return None
    return int(struct.unpack("q", data)[0]) if len(data) == 8 else None


def _resident(pid: int) -> int | None:
    """Bytes of anonymous and shared memory the process holds; None once it is gone."""
    try:
        rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return sum(int(row.split()[1]) * 1024 for row in rows if row.startswith(("RssAnon:", "RssShmem:")))


def _used(folder: Path) -> int:
    """Bytes of the files in `folder`, each counted as a page at least."""
    total = 0
    for root, folders, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += max(os.lstat(os.path.join(root, name)).st_blocks * 512, 4096)  # noqa: PTH118
        total += 4096 * len(folders)
    return total


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        report = json.loads(text) if text else {}
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}
