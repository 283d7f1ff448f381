"""Cancel running programs by an event that the waiting caller sets."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event

from clearhead.errors import SandboxError

_event: ContextVar[Event | None] = ContextVar("cancelled", default=None)


class Cancelled(SandboxError):
    """The program was stopped because its caller no longer waits."""

    def __init__(self) -> None:
        super().__init__("the program was cancelled")


@contextmanager
def cancelled_by(event: Event) -> Iterator[None]:
    """Stop every program that this thread starts inside the block, as soon as the event is set.

    Raises:
        Cancelled: from `run` and its like, if a program was stopped this way.
    """
    token = _event.set(event)
    try:
        yield
    finally:
        _event.reset(token)


def current() -> Event | None:
    """Return the event that cancels programs started now, or None."""
    return _event.get()
