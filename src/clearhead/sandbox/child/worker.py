"""A warm worker: imports what programs need once, then forks a confined child for each program.

Protocol, on the socket at file descriptor 3: a request is one byte with the descriptors (reply socket, stdin, stdout,
stderr, job, report[, channel]). The worker never sees the job. The child reads it from its own pipe, so no program can
find another one in its memory. On the reply socket the worker sends the child's pid and, when the child ends, its wait
status. The worker ends when its socket closes.
"""

import contextlib
import ctypes
import fcntl
import gc
import importlib.metadata
import importlib.util
import os
import selectors
import signal
import socket
import struct
import sys
from typing import Any

from clearhead.sandbox.child import confined, reset
from clearhead.sandbox.confinement import grants, priority

SOCKET = 3
_PR_SET_PDEATHSIG = 1


def prepare(preload: list[str]) -> None:
    """Import and set up what programs need, so that first-use costs are paid once for all children."""
    for name in preload:
        module = importlib.import_module(name)
        if name == "torch":
            _warm(module)
    _list_modules()
    reset.shuffle(0)
    grants.readable()


def main(preload: list[str], *, low: bool = False) -> None:
    """Serve until the socket closes. `low`: lower the priority after the imports."""
    prepare(preload)
    if low:
        priority.lower()
        priority.lower_session(os.getpid())
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=SOCKET)
    wake_read, wake_write = os.pipe()
    for end in (wake_read, wake_write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    control.sendall(b"R")  # ready
    waiting: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is control:
                    data, descriptors, _, _ = socket.recv_fds(control, 1, 16)
                    if not data:
                        os._exit(0)  # PR_SET_PDEATHSIG ends the children too
                    _start(descriptors, waiting)
                else:
                    os.read(wake_read, 4096)
            _reap(waiting)


def _list_modules() -> None:
    """Make Python list and cache its import folders, by searching for a module that does not exist.

    A child may read the modules in them, but cannot list a folder that holds something private, such as the
    site-packages that contains clearhead. Without the cache it would find no module there that is not imported yet.
    """
    for nowhere in ("clearhead_nowhere", "clearhead.nowhere"):
        importlib.util.find_spec(nowhere)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.distribution("clearhead-nowhere")


def _warm(torch: Any) -> None:
    """Set up torch once for all children, with one thread: sums have one order, and a fork loses no threads."""
    torch.set_num_threads(1)
    square = torch.ones(1, 1, 2, 2)
    torch.nn.functional.scaled_dot_product_attention(square, square, square)
    for _ in range(10):  # warm up the commonest operations, so that children neither pay for them nor copy their pages
        str((torch.nn.functional.linear(square, square[0, 0]) @ square).softmax(-1).tolist())
        str(torch.randn(2, 3))
    # These two import sympy and torch._dynamo on first use, 1 s and more that each child would pay again.
    torch.unravel_index(torch.tensor(0), (1,))
    torch.optim.Adam([torch.nn.Parameter(square)])


def _start(descriptors: list[int], waiting: dict[int, socket.socket]) -> None:
    """Fork a child that holds these descriptors and no others."""
    me = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _become(descriptors[1:], me)
        except BaseException as error:  # noqa: BLE001 — nothing may return into the worker's loop
            os.write(2, f"the sandbox failed: {type(error).__name__}: {error}".encode())
        finally:
            os._exit(82)
    reply = socket.socket(fileno=descriptors[0])
    for descriptor in descriptors[1:]:
        os.close(descriptor)
    waiting[pid] = reply
    _send(reply, pid)


def _become(descriptors: list[int], parent: int) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    os.setpgid(0, 0)  # stay in the worker's session, which has one priority for all programs
    # Move to free numbers first, so that no descriptor is overwritten before it is placed.
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, len(descriptors)) for descriptor in descriptors]
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, place, inheritable=False)
    os.closerange(len(high), 4096)
    confined.main()


def _reap(waiting: dict[int, socket.socket]) -> None:
    while waiting:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        reply = waiting.pop(pid, None)
        if reply:
            _send(reply, status)
            reply.close()


def _send(reply: socket.socket, number: int) -> None:
    try:
        reply.sendall(struct.pack("q", number))
    except OSError:
        return  # the requesting process has ended; RLIMIT_CPU ends the child


if __name__ == "__main__":
    main(sys.argv[1:])
