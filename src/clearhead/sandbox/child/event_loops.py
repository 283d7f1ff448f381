"""Let asyncio run where there are no sockets.

An event loop of asyncio wakes itself through a pair of sockets, even if the program opens no connection. The system
call filter denies sockets, and a pipe does the same.
Source: CPython, Lib/asyncio/selector_events.py, `_make_self_pipe`, unchanged from Python 3.11 to 3.13.
"""

import os
from asyncio import selector_events
from typing import Any


class _PipeEnd:
    """One end of a pipe with the methods of a socket that an event loop calls."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def recv(self, size: int) -> bytes:
        return os.read(self._descriptor, size)

    def send(self, data: bytes) -> int:
        return os.write(self._descriptor, data)

    def close(self) -> None:
        os.close(self._descriptor)


def wake_by_pipes() -> None:
    """Make every event loop that starts later in this process wake itself through a pipe."""
    selector_events.BaseSelectorEventLoop._make_self_pipe = _make_self_pipe  # type: ignore[attr-defined]


def _make_self_pipe(loop: Any) -> None:
    loop._ssock, loop._csock = map(_PipeEnd, os.pipe())
    loop._internal_fds += 1
    loop._add_reader(loop._ssock.fileno(), loop._read_from_self)
