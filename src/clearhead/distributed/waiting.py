"""Wait for other ranks: measured, interruptible by signals, and with an error that says what happened."""

from __future__ import annotations

import queue
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist

from clearhead.errors import RanksError


@dataclass(slots=True)
class Timing:
    """How long this rank waited for others, and how much it sent, since `timing()` was entered.

    Attributes:
        waiting: seconds in collectives and transfers that were not overlapped with computation.
        sent: bytes that this rank sent.
    """

    waiting: float = 0.0
    sent: int = 0


_TIMINGS: list[Timing] = []
_ENDED: weakref.WeakSet[Any] = weakref.WeakSet()  # groups that this rank has left
_NEVER = 5  # the tag of a message that is never sent
_LEFT = "clearhead/left"  # the key under which the store of a group has the rank that left it first, and why
_POLL = 0.5  # seconds between looks at the store while this rank waits
_Work = tuple[Callable[[], Any], "queue.SimpleQueue[BaseException | None]"]


@contextmanager
def timing() -> Iterator[Timing]:
    """Measure how long this rank waits for others and how much it sends.

    Example:
        >>> with timing() as measured:
        ...     pass
        >>> measured.sent
        0
    """
    measured = Timing()
    _TIMINGS.append(measured)
    try:
        yield measured
    finally:
        _TIMINGS.remove(measured)


def count_sent(size: int) -> None:
    """Add a number of bytes to what this rank sent."""
    for measured in _TIMINGS:
        measured.sent += size


def wait(group: Any, doing: str, device: torch.device | None, work: Callable[[], Any]) -> None:
    """Call a function that waits for other ranks. Whatever ends it early ends the group.

    Args:
        doing: what this rank is doing, for the error.
        device: where the tensors are; waiting for tensors on the CPU can be interrupted by Ctrl-C. None = `work` only
            starts something.
    Raises:
        RanksError: another rank has ended, or has left the group.
    """
    start = time.perf_counter()
    try:
        if device is not None and device.type == "cpu" and threading.current_thread() is threading.main_thread():
            _interruptible(group, work)
        else:
            work()
    except NotImplementedError:  # the transport lacks the operation, on all ranks
        raise
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError) or not isinstance(error, RuntimeError):
            end(group, error)
            raise
        why = _left(group) or (
            "it has ended or raised an error. See the first error among all ranks. The transport reports: "
            f"{_reason(error)}"
        )
        end(group, error)
        raise RanksError(f"another rank did not answer while this one was {doing}: {why}") from None
    except BaseException as error:
        end(group, error)
        raise
    finally:
        for measured in _TIMINGS:
            measured.waiting += time.perf_counter() - start


def end(group: Any, error: BaseException) -> None:
    """Leave a group for good, so that the ranks that wait for this one raise an error.

    Those connected to it notice at once, and those that wait for yet other ranks when they next look at the store.
    """
    if group in _ENDED or dist.get_world_size(group) == 1:
        return
    _ENDED.add(group)
    with suppress(Exception):  # a store that has ended with its rank
        if _left(group) is None:
            reason = type(error).__name__ if not isinstance(error, RuntimeError) else _reason(error)
            group.get_group_store().set(_LEFT, f"rank {dist.get_rank(group)} left after {reason}")
    with suppress(Exception):
        if "gloo" in str(dist.get_backend_config(group)):
            _close_gloo(group)
        group.abort()


def _left(group: Any) -> str | None:
    """Return which rank left the group first, and why; None if no rank has, or the store is gone."""
    with suppress(RuntimeError):
        store = group.get_group_store()
        if store.check([_LEFT]):
            return str(store.get(_LEFT).decode(errors="replace"))
    return None


def _close_gloo(group: Any) -> None:
    """Close all connections of a group, as gloo does when a receive times out; its own `abort` does nothing."""
    for rank in dist.get_process_group_ranks(group):
        if rank != dist.get_rank():
            with suppress(RuntimeError):  # timed out, or this connection was closed already, which closes no others
                never = cast(dist.Work, dist.irecv(torch.empty(1, device="cpu"), rank, group, _NEVER))
                never.wait(timedelta(milliseconds=1))


def check_open(group: Any) -> None:
    """Refuse a group that this rank has left.

    Raises:
        RanksError: the message says how to get a new group.
    """
    if group in _ENDED:
        raise RanksError(
            "the connections between these ranks were closed after an earlier error or interruption. Start all ranks "
            "again, or make a new group on each with torch.distributed.new_group() and pass it as mesh."
        )


def _reason(error: RuntimeError) -> str:
    """The first sentence of an error of gloo's or NCCL's, without the place in their source before it."""
    first = str(error).strip().partition("\n")[0]
    return re.sub(r"^\[\S*:\d+\] *", "", first).partition(". ")[0].rstrip(".") or type(error).__name__


def _interruptible(group: Any, work: Callable[[], Any]) -> None:
    """Call a function that waits without the interpreter, on another thread, so that this one stays responsive.

    Python runs signal handlers on the main thread and between two of its instructions, and a wait for a rank that is
    busy or lost is one instruction of minutes. Handing over takes some 20 µs.

    Raises:
        RuntimeError: of the transport, or a rank has left the group that `work` does not wait for directly.
    """
    done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    _Waiter.current().todo.put((work, done))
    try:
        while True:
            try:
                error = done.get(timeout=_POLL)
                break
            except queue.Empty:
                if group.get_group_store().check([_LEFT]):
                    raise RuntimeError("a rank has left") from None
    except BaseException:
        _Waiter.own = None  # the thread may wait on, so the next wait needs another
        raise
    if error is not None:
        raise error


class _Waiter(threading.Thread):
    """A thread that waits for the main thread. It is a daemon, so that it keeps no process alive."""

    own: _Waiter | None = None

    def __init__(self) -> None:
        super().__init__(name="clearhead-waiter", daemon=True)
        self.todo: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self.start()

    @classmethod
    def current(cls) -> _Waiter:
        """Return the thread, started again if it is not alive: after a fork, for example."""
        if cls.own is None or not cls.own.is_alive():
            cls.own = cls()
        return cls.own

    def run(self) -> None:
        """Call each function and answer with None or its error."""
        while True:
            work, done = self.todo.get()
            try:
                work()
            except BaseException as error:  # noqa: BLE001 (the main thread raises it)
                done.put(error)
            else:
                done.put(None)
            del work, done  # they hold tensors
