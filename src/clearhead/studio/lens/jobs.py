"""Long work behind a page: told line by line while it runs, and stopped when nobody listens any more.

The work runs in a thread of the Lens's queue; the answer to the browser is one line of JSON each time something
changed, the last of them what came of it. When the browser stops asking, the connection closes, and the work is told to
stop where it next says how far it is.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor, wait
from contextvars import copy_context
from threading import Event
from typing import Any

from clearhead.errors import ClearheadError
from clearhead.studio.lens.readings import Tell
from clearhead.studio.text.translation import _, explained

LOOK = 0.05  # seconds between two looks at how far it is


class Stopped(Exception):
    """Nobody waits for this work any more."""


class Work:
    """One piece of work in another thread, begun as soon as one is free.

    Args:
        make: does it; is handed what to tell how far it is.
        threads: which run it.

    Attributes:
        answer: what came of it, as a line of JSON; None while it runs. A ClearheadError becomes its message.
    """

    def __init__(self, make: Callable[[Tell], dict[str, Any]], threads: Executor) -> None:
        self._stop = Event()
        self._at: dict[str, Any] = {}
        self.answer: str | None = None
        self._future = threads.submit(copy_context().run, self._run, make)  # in the same language

    def stop(self) -> None:
        """Ask it to stop; it does where it next tells how far it is."""
        self._stop.set()
        self._future.cancel()

    def ended(self, within: float) -> bool:
        """Whether the work is over, waiting at most `within` seconds for it."""
        wait([self._future], within)
        return self._future.done()

    async def lines(self, gone: Callable[[], Awaitable[bool]]) -> AsyncIterator[str]:
        """A line of JSON each time something changed: `{"doing", "done", "total"}`, and at last the answer.

        Args:
            gone: whether nobody listens any more; the work is stopped then, and whenever this ends before it.
        """
        reported: dict[str, Any] = {}
        try:
            while self.answer is None and not await gone():
                if self._at != reported:
                    reported = self._at
                    yield json.dumps(reported) + "\n"
                await asyncio.sleep(LOOK)
            yield self.answer or ""
        finally:
            self.stop()

    def _run(self, make: Callable[[Tell], dict[str, Any]]) -> None:
        try:
            answer = make(self._tell)
        except Stopped:
            answer = {"error": "stopped"}
        except ClearheadError as error:
            answer = refusal(error)
        except Exception:
            self.answer = json.dumps({"error": _("The studio has a fault. The terminal says more.")}) + "\n"
            raise
        self.answer = json.dumps(answer, ensure_ascii=False) + "\n"

    def _tell(self, doing: str, done: int, total: int) -> None:
        if self._stop.is_set():
            raise Stopped
        self._at = {"doing": doing, "done": done, "total": total}


def refusal(error: ClearheadError) -> dict[str, Any]:
    """What the page is told: the message, and whether consent to the own code of a model, and of which, would help."""
    consent = bool(getattr(error, "remote_code", False))
    return {"error": explained(error), "consent": consent, "model": getattr(error, "model", None)}
