"""Watch a confined process from launch to outcome: its time, memory, output and disk. Kill it at a limit."""

import base64
import contextlib
import json
import math
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from clearhead import scratch
from clearhead.errors import SandboxError
from clearhead.sandbox.child.execution import STARTED
from clearhead.sandbox.confinement import grants
from clearhead.sandbox.limits import THREAD, Chunk, Limits, Outcome, Program, disk_is_full, no_memory, value_key
from clearhead.sandbox.processes import cancel, disk, reports
from clearhead.sandbox.processes.clock import Clock

_TICK = 0.02  # seconds between checks of a child's memory and disk
_GRACE = 30.0  # seconds for a killed child to disappear
TMPFS = True  # whether to use a tmpfs of limited size for a program's folder, if the kernel offers one


class Interrupted(SandboxError):
    """A program's process or its worker was killed from outside, so the program has no outcome."""

    def __init__(self) -> None:
        super().__init__("the program was killed from outside while it ran; run it again")


class Starter(Protocol):
    """Starts confined processes: a warm worker, or bubblewrap.

    Attributes:
        overhead: seconds a program may take to start, on top of its own time.
        lost: whether a program ended without a report or could not be started, which means that its worker is ending.
    """

    overhead: float
    lost: bool

    def launch(self, descriptors: Sequence[int], folder: Path, size: int) -> None:
        """Start a process that holds these descriptors (reply, 0, 1, 2, job, report[, channel])."""


class Running:
    """A child process. Call `launch`, then `finish`; call `abandon` to give up on it after `launch`."""

    def __init__(
        self, chunks: Sequence[Chunk] | Sequence[Program], *, limits: Limits, stdin: str,
        files: Sequence[tuple[str, bytes]], want: Sequence[tuple[str, str]], salt: int, role: str = "program",
        channel: int | None = None, confined: bool = True, mark: str = "", time_each: float | None = None,
    ) -> None:  # fmt: skip
        self.limits, self.channel = limits, channel
        self.mark, self.time_each = mark.encode(), time_each  # for a batch
        self.wanted = [value_key(name, spec) for name, spec in want]
        self.count = len(chunks) if role in ("programs", "learners", "tests of each") else 0
        given = {_file_name(name): base64.b64encode(data).decode() for name, data in files}
        self.folder = scratch.folder("run-")
        self.job = json.dumps({
            "chunks": [asdict(chunk) for chunk in chunks], "limits": asdict(limits), "folder": str(self.folder),
            "want": [list(pair) for pair in want], "salt": salt, "role": role, "confined": confined,
            "mark": mark, "files": given, "tmpfs": TMPFS, "hidden": [str(path) for path in grants.hidden()],
        }).encode()  # fmt: skip
        self.stdin = stdin.encode(errors="backslashreplace")
        self.clock, self.switched = Clock(), 0.0  # for a batch: when the current program began
        self.partner: Running | None = None  # the process that it exchanges values with and waits for
        self.pid: int | None = None
        self.ended = False
        self.buffers: dict[int, bytearray] = {}
        self.writes: dict[int, bytes] = {}
        self.open: set[int] = set()  # our ends of its pipes
        self.reply: socket.socket | None = None
        self.starter: Starter | None = None
        self.stopped: str | None = None
        self.cancelled = cancel.current()  # taken here, in the caller's thread: another thread may watch the child
        self.each: Sequence[Mapping[str, Any]] = ()

    def launch(self, starter: Starter) -> None:
        """Hand the child its descriptors; keep our ends."""
        self.seconds = self.limits.seconds + starter.overhead
        pipes = [os.pipe() for _ in range(5)]  # stdin, stdout, stderr, job, report
        reply, theirs = socket.socketpair()
        give = [pipes[0][0], pipes[1][1], pipes[2][1], pipes[3][0], pipes[4][1]]
        keep = [pipes[0][1], pipes[1][0], pipes[2][0], pipes[3][1], pipes[4][0]]
        self.reply, self.starter = reply, starter
        self.writes = {keep[0]: self.stdin, keep[3]: self.job}
        self.out, self.err, self.report = keep[1], keep[2], keep[4]
        self.open = set(keep)
        self.buffers = {descriptor: bytearray() for descriptor in (self.out, self.err, self.report)}
        extra = [] if self.channel is None else [self.channel]
        try:
            starter.launch([theirs.fileno(), *give, *extra], self.folder, self.limits.disk if TMPFS else 0)
        except (BrokenPipeError, ConnectionResetError) as ended:  # the worker has ended
            self._clean()
            starter.lost = True
            raise Interrupted from ended
        except BaseException:
            self._clean()
            raise
        finally:
            theirs.close()
            for descriptor in give:
                os.close(descriptor)

    def finish(self, *, last: bool = True) -> Outcome:
        """Watch the child to its end, stop it at a limit, and return its outcome.

        Args:
            last: whether this is the last try. Then a SIGKILL counts as the program's own end; before, it may have come
                from outside.
        Raises:
            Interrupted: the worker ended while the program ran, or SIGKILL ended it and this is not the `last` try.
        """
        if self.reply is None or self.starter is None:
            raise SandboxError("the program was not launched, or has been waited for already")
        try:
            status = self._watch(self.reply)
        finally:
            self.abandon()
        if self.stopped == "cancelled":
            raise cancel.Cancelled
        killed = status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        late = self.clock.wall() >= self.limits.seconds  # the hard limit of RLIMIT_CPU kills too
        self.starter.lost = self.starter.lost or (self.stopped is None and status is None)
        if self.stopped is None and (status is None or (killed and not last and not late)):
            raise Interrupted
        return self._outcome(status)

    def abandon(self) -> None:
        """Kill the child if it still runs, and release its resources, however the watching ended."""
        try:
            if self.reply is not None and not self.ended:
                self.pid = self.pid or _number(self.reply, _GRACE)
                self.kill()
                _number(self.reply, _GRACE)  # wait until it is gone before removing its folder
        finally:
            self.ended = True
            self._clean()

    def kill(self) -> None:
        """Kill the child now. `finish` returns soon after."""
        if self.pid is not None and not self.ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)  # the pid is still valid: its end has not been reported

    def _clean(self) -> None:
        while self.open:
            with contextlib.suppress(OSError):
                os.close(self.open.pop())
        if self.reply is not None:
            self.reply.close()
            self.reply = None
        scratch.remove(self.folder)

    def _watch(self, reply: socket.socket) -> int | None:
        self.pid = _number(reply, self.seconds - self.limits.seconds + _GRACE)
        if self.pid is None:  # the worker has ended or hangs. No program runs yet: the job is written below
            self.ended = True
            return None
        self.clock = Clock()
        base = resident(self.pid) or 0
        poller = select.poll()
        poller.register(reply, select.POLLIN | select.POLLHUP)
        for descriptor in self.buffers:
            poller.register(descriptor, select.POLLIN | select.POLLHUP)
        for descriptor in self.writes:
            os.set_blocking(descriptor, False)
            poller.register(descriptor, select.POLLOUT | select.POLLERR)
        last_look, killed = self.clock.started, math.inf
        while True:
            for descriptor, event in poller.poll(_TICK * 1000):
                if descriptor == reply.fileno():
                    status = _number(reply, 5.0)
                    self.ended = True
                    self._drain()
                    return status
                self._serve(poller, descriptor, event)
            now = time.monotonic()
            look = now - last_look >= _TICK
            if self.stopped is None:
                self.stopped = self._over(base, look)
                if self.stopped:
                    self.kill()
                    killed = now
            if look:
                last_look = now
            if now - killed > _GRACE:
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
                self.open.discard(descriptor)
                del self.writes[descriptor]
            return
        data = os.read(descriptor, 65536)
        if data:
            self.buffers[descriptor] += data
            if self.mark and self.mark in data:
                self.switched = self._seconds()
        elif event:
            poller.unregister(descriptor)

    def _drain(self) -> None:
        """Read the rest of the child's pipes. No other process holds their other ends, so this cannot hang."""
        for descriptor, buffer in self.buffers.items():
            os.set_blocking(descriptor, False)
            with contextlib.suppress(BlockingIOError):
                while len(buffer) <= self.limits.output and (data := os.read(descriptor, 65536)):
                    buffer += data
        if self.stopped is None and sum(map(len, self.buffers.values())) > self.limits.output:
            self.stopped = "output"

    def _over(self, base: int, look: bool) -> str | None:
        if self.cancelled is not None and self.cancelled.is_set():
            return "cancelled"
        if self._is_late():
            return "time"
        if sum(map(len, self.buffers.values())) > self.limits.output:
            return "output"
        if self.pid is None or not look:
            return None
        if (resident(self.pid) or 0) - base > self.limits.memory:
            return "memory"
        if self.limits.disk and disk.used(self.pid, self.folder, self.limits.disk) > self.limits.disk:
            return "disk"
        return None

    def _is_late(self) -> bool:
        each = math.inf if self.time_each is None else self.switched + self.time_each
        limit = min(self.seconds, each)
        return self.clock.wall() > limit and self._seconds() > limit

    def _seconds(self) -> float:
        both = [self] if self.partner is None else [self, self.partner]
        return self.clock.seconds([process.pid for process in both if process.pid is not None])

    def _outcome(self, status: int | None) -> Outcome:
        code = -9 if status is None else os.waitstatus_to_exitcode(status)
        out, err = (
            bytes(self.buffers[at][: self.limits.output]).decode(errors="replace") for at in (self.out, self.err)
        )
        data = bytes(self.buffers[self.report][: self.limits.output])
        stopped, report = self.stopped, reports.Report()
        try:
            report = reports.parse(data.removeprefix(STARTED), self.wanted, self.count)
        except reports.ReportError as error:
            if stopped is None:
                stopped, err = "report", f"{err}\nIts report is malformed: {error}."
        if stopped is None and not data.startswith(STARTED):
            stopped = "start"
        elif stopped is None and code in (-24, -9):  # SIGXCPU, or a SIGKILL that we did not send: the kernel's limit
            late = self.clock.wall() >= self.limits.seconds
            stopped = "time" if code == -24 or late else "memory"
        elif stopped is None and code == -signal.SIGBUS and self.limits.disk:
            # A mapped page found no room on the disk. A mapping of a file that was cut short ends the same way.
            stopped = "disk"
        elif stopped is None and report.raised and no_memory(report.raised):
            stopped = "memory"
        elif stopped is None and report.raised and disk_is_full(report.raised):
            stopped = "disk"
        self.each = report.each
        return Outcome(out, err, code, stopped, self.clock.wall(), report.raised, report.values, report.tests)


def _file_name(name: str) -> str:
    """Return the name of a file inside the program's folder."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise SandboxError(f"file name {name!r} leads outside the program's folder; use a plain name")
    return name


def _number(reply: socket.socket, timeout: float) -> int | None:
    reply.settimeout(timeout)
    try:
        data = reply.recv(8, socket.MSG_WAITALL)
    except OSError:
        return None
    return int(struct.unpack("q", data)[0]) if len(data) == 8 else None


def resident(pid: int) -> int | None:
    """Return the bytes of memory that the process holds, plus THREAD for each thread; None once it has ended.

    The file is read as bytes, because it contains the process's name, which the program may set to anything.
    """
    try:
        rows = Path(f"/proc/{pid}/status").read_bytes().splitlines()
    except OSError:
        return None
    units = {b"RssAnon": 1024, b"RssShmem": 1024, b"Threads": THREAD}
    parts = (row.partition(b":") for row in rows)
    return sum(int(value.split()[0]) * units[name] for name, _, value in parts if name in units)
