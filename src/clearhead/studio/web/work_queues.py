"""Queues for slow work, so that no learner waits for another and no page waits for a program.

Pages run in the server's own threads. Programs and models run in separate threads: one job per learner runs at a time,
a few more wait, and the rest is refused. A learner has at most one job in the shared queue, so learners alternate
there. With several processes, the limits hold for all of them together.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial, wraps
from threading import Event
from typing import Any, Final, ParamSpec, TypeVar

from starlette.concurrency import run_in_threadpool

from clearhead import sandbox
from clearhead.studio.text.translation import _
from clearhead.studio.web.locks import Locks

P = ParamSpec("P")
R = TypeVar("R")
WAITING: Final = 3  # waiting jobs of one learner, besides the one that runs
LOOK: Final = 0.2  # seconds between checks whether the browser still waits
SECONDS: Final = 2  # after which a refused learner may try again
_on_page: ContextVar[bool] = ContextVar("on_page", default=False)


class Busy(Exception):
    """Too much work of this learner is waiting already."""

    def __str__(self) -> str:
        return _("Some of your programs are still waiting to be run. Wait until they have ended, then send this again.")


class NeedsQueue(Exception):
    """A route in a page thread reached slow work, and is called again in its queue."""


@dataclass
class _Pending:
    """The work of one learner that runs or waits."""

    count: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class WorkQueue:
    """A queue for one kind of slow work.

    Args:
        name: the name of its threads.
        at_once: how many jobs run at once, over all learners.
        locks: shared with the other processes of this studio; None if there is only one.
    """

    def __init__(self, name: str, at_once: int, locks: Locks | None = None) -> None:
        self.name, self.at_once = name, at_once
        self.threads = ThreadPoolExecutor(at_once, thread_name_prefix=name)
        self._places: dict[int, _Pending] = {}
        self._locks = locks
        self._first = asyncio.Lock()  # held by the one job that polls for the other processes

    @asynccontextmanager
    async def slot(self, learner: int) -> AsyncIterator[None]:
        """Wait until no other job of this learner runs, and fewer jobs of all learners than may run at once.

        The work itself runs in `threads`.

        Raises:
            Busy: too many jobs of this learner wait already, so this one is not queued.
        """
        place = self._places.setdefault(learner, _Pending())
        if place.count > WAITING:
            raise Busy
        place.count += 1
        try:
            async with AsyncExitStack() as held:
                if self._locks:
                    waiting = self._locks.take(f"{self.name} waiting", learner, 1 + WAITING)
                    if waiting is None:
                        raise Busy
                    held.callback(os.close, waiting)
                await held.enter_async_context(place.lock)
                if self._locks:
                    await held.enter_async_context(self._locks.hold(f"{self.name} running", learner))
                    async with self._first:
                        await held.enter_async_context(self._locks.hold(self.name, count=self.at_once))
                yield
        finally:
            place.count -= 1
            if not place.count:
                del self._places[learner]

    async def run(self, learner: int, work: Callable[[], R]) -> R:
        """Do the work in a thread of this queue, once it has a slot.

        Raises:
            Busy: see `slot`.
        """
        async with self.slot(learner):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self.threads, copy_context().run, partial(_off_page, work))

    def close(self) -> None:
        """Start no more work."""
        self.threads.shutdown(wait=False, cancel_futures=True)


def _off_page(work: Callable[[], R]) -> R:
    _on_page.set(False)
    return work()


def _as_page(route: Callable[P, R], *args: P.args, **given: P.kwargs) -> R:
    _on_page.set(True)
    return route(*args, **given)


def _cancellable(left: Event, route: Callable[P, R], *args: P.args, **given: P.kwargs) -> R:
    with sandbox.cancelled_by(left):
        return route(*args, **given)


def needs_queue() -> None:
    """Announce that slow work comes next.

    Raises:
        NeedsQueue: this is a page thread; `queued` calls the route again in a queue.
    """
    if _on_page.get():
        raise NeedsQueue


def queued(kind: str) -> Callable[[Callable[P, R]], Callable[P, Awaitable[R]]]:
    """Decorate a route that may do slow work of this kind. The route has a parameter `context`.

    The route starts in a page thread. When it announces slow work (`needs_queue`), it is called again from the start in
    the queue of its kind, so the code before that call must change nothing.
    """

    def decorate(route: Callable[P, R]) -> Callable[P, Awaitable[R]]:
        @wraps(route)
        async def waits(*args: P.args, **given: P.kwargs) -> R:
            try:
                return await run_in_threadpool(partial(_as_page, route), *args, **given)
            except NeedsQueue:
                context: Any = given["context"]
                queues: Mapping[str, WorkQueue] = context.queues
                left = Event()  # set when the browser closes the connection, as Cancel in a page does
                work = asyncio.ensure_future(
                    queues[kind].run(context.store.learner, partial(_cancellable, left, route, *args, **given))
                )
                try:
                    while not (await asyncio.wait({work}, timeout=LOOK))[0]:
                        if not left.is_set() and await context.left():
                            left.set()
                    return await work
                finally:
                    left.set()
                    work.cancel()

        return waits

    return decorate
