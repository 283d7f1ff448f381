"""Run long work behind a page: stream its progress, and stop it when the connection closes.

The work runs in a thread of the Lens's queue. The browser gets a line of JSON each time the progress changes; the last
line is the result. When the connection closes, the work stops at its next progress report.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor, wait
from contextvars import copy_context
from threading import Event
from typing import Any

from clearhead.errors import ClearheadError
from clearhead.studio.lens.readings import Tell
from clearhead.studio.text.translation import _, explained

LOOK = 0.05  # seconds between two checks of the progress
LOG = logging.getLogger("uvicorn.error")  # the server's, which removes what a terminal acts on


class Stopped(Exception):
    """The connection that waits for this work has closed."""


class Job:
    """One piece of work, which starts as soon as a thread is free.

    Args:
        make: does the work; its argument is a function that reports progress.
        threads: the pool that runs it.
        parts: a list to which `make` appends while it runs. Each entry is sent as a line before the answer.

    Attributes:
        answer: the result as a line of JSON; None while it runs. A ClearheadError becomes its message.
    """

    def __init__(
        self, make: Callable[[Tell], dict[str, Any]], threads: Executor, parts: list[dict[str, Any]] | None = None
    ) -> None:
        self._stop = Event()
        self._parts: list[dict[str, Any]] = [] if parts is None else parts
        self._at: dict[str, Any] = {}
        self.answer: str | None = None
        self._future = threads.submit(copy_context().run, self._run, make)  # in the same language

    def stop(self) -> None:
        """Stop the work at its next progress report."""
        self._stop.set()
        self._future.cancel()

    def ended(self, within: float) -> bool:
        """Return whether the work has ended, after waiting at most `within` seconds."""
        wait([self._future], within)
        return self._future.done()

    async def lines(self, gone: Callable[[], Awaitable[bool]]) -> AsyncIterator[str]:
        """Yield a line of JSON for each part, each time the progress changed, and finally for the answer.

        Progress is `{"doing", "done", "total"}`.

        Args:
            gone: returns whether the connection has closed; the work is then stopped.
        """
        reported: dict[str, Any] = {}
        sent = 0
        try:
            while self.answer is None and not await gone():
                if self._at != reported:
                    reported = self._at
                    yield json.dumps(reported) + "\n"
                for part in self._parts[sent:]:
                    sent += 1
                    yield _line(part)
                await asyncio.sleep(LOOK)
            for part in self._parts[sent:]:
                yield _line(part)
            yield self.answer or ""
        finally:
            self.stop()

    def _run(self, make: Callable[[Tell], dict[str, Any]]) -> None:
        try:
            answer = make(self._tell)
        except Stopped:
            answer = {"error": "stopped"}
        except ClearheadError as error:
            answer = error_fields(error)
        except Exception:
            LOG.exception("work for a page of the Lens failed")
            answer = {"error": _("The studio has a fault. The terminal says more.")}
        self.answer = _line(answer)

    def _tell(self, doing: str, done: int, total: int) -> None:
        if self._stop.is_set():
            raise Stopped
        self._at = {"doing": doing, "done": done, "total": total}


def _line(part: dict[str, Any]) -> str:
    return json.dumps(part, ensure_ascii=False) + "\n"


def error_fields(error: ClearheadError) -> dict[str, Any]:
    """Return an error for the page: the message, and the model whose code needs permission to run, if any."""
    consent = bool(getattr(error, "remote_code", False))
    return {"error": explained(error), "consent": consent, "model": getattr(error, "model", None)}
