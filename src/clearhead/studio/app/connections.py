"""Connections that a client keeps waiting: closed after a while, and the oldest of them first where there are too many.

uvicorn waits for ever for the rest of a request and for a client that does not read its answer. Each waiting connection
is an open file of the process, so 1,024 half requests, of somebody who has no account, kept a class from its studio.
"""

import asyncio
from typing import Any, Final

from clearhead.extras import STUDIO, needs

with needs(*STUDIO):
    from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS: Final = 60.0  # for a whole request, and for a client to go on reading an answer: 1 MiB at 17 kB/s
MOST: Final = 2_000  # connections of a process: a class of 300 with six each, as browsers open them
FILES: Final = 1_024  # open files of a process where the operating system does not say


class Connection(H11Protocol):
    """A connection that knows since when it waits for its client: for a request, or for an answer to be read."""

    seconds = SECONDS
    most = MOST

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self._since: float | None = None  # when the client's turn began, on the loop's clock; None: it is the server's
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > min(self.most, _files() // 2):
            self._close_oldest()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering():
            self._go_on()
        elif self._timer is None:  # the first bytes of the next request, after an answer
            self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._wait()  # closing, too, waits until the client has read
        elif self._timer is None and not self._is_answering():  # no pipelined request has begun already
            self._since = self.loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._go_on()
            self._since = None if self._is_answering() else self.loop.time()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._go_on()
        super().connection_lost(exc)

    def _is_answering(self) -> bool:
        """Return whether a whole request has arrived and its answer has not been sent yet."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def _wait(self) -> None:
        self._go_on()
        self._since = self.loop.time()
        self._timer = self.loop.call_later(self.seconds, self._late)

    def _go_on(self) -> None:
        self._since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self.flow.read_paused and not self.flow.write_paused:  # the server has not taken what was sent
            self._wait()
        else:
            self.transport.abort()

    def _close_oldest(self) -> None:
        waiting = [other for other in self.connections if isinstance(other, Connection) and other._since is not None]
        oldest = min(waiting, key=lambda other: other._since or 0.0)  # at least this one waits
        oldest._since = None
        oldest.transport.abort()


def _files() -> int:
    """Return how many files this process may open."""
    try:
        import resource
    except ImportError:  # Windows
        return FILES
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return FILES**2 if soft == resource.RLIM_INFINITY else soft
