"""Cancel programs that run, by an event that the waiting caller sets."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event

from clearhead.errors import SandboxError

_event: ContextVar[Event | None] = ContextVar("cancelled", default=None)


class Cancelled(SandboxError):
    """The program was stopped because nobody waits for it any more."""

    def __init__(self) -> None:
        super().__init__("the program was cancelled")


@contextmanager
def cancelled_by(event: Event) -> Iterator[None]:
    """Stop every program that is started within, in this thread, as soon as the event is set.

    Raises:
        Cancelled: from `run` and its like, where a program was stopped so.
    """
    token = _event.set(event)
    try:
        yield
    finally:
        _event.reset(token)


def current() -> Event | None:
    """Return the event that cancels programs started now; None where nothing does."""
    return _event.get()
