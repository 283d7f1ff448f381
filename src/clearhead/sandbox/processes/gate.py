"""Admission control: bound how many confined programs run at once and their memory together, fairly between owners.

Owners take turns, round robin, and nobody overtakes the owner whose turn it is, so small requests do not starve a large
one. An owner with running programs gets at most half of each resource, so another owner always finds room. The bound
holds within one process; several processes that serve one studio `share` the machine.
"""

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from clearhead.errors import SandboxError
from clearhead.sandbox.limits import MIB, Limits

_RESERVED = 3 * 1024 * MIB  # smallest share of memory: two programs with the default limits


@dataclass(eq=False, slots=True)
class Reservation:
    """A place in the queue, then running programs. `granted` is set when they may run."""

    owner: str
    programs: int
    memory: int
    granted: threading.Event = field(default_factory=threading.Event)


class Gate:
    """Admits programs while there is room for them.

    >>> gate = Gate(programs=4, memory=1000)
    >>> first, second, third = (gate.ask(owner, 2, 400) for owner in ("ada", "ada", "bob"))
    >>> first.granted.is_set(), second.granted.is_set(), third.granted.is_set()
    (True, False, True)
    """

    def __init__(self, programs: int, memory: int) -> None:
        self.programs, self.memory = programs, memory
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, deque[Reservation]] = OrderedDict()  # in the order of turns
        self._running: list[Reservation] = []

    @property
    def running(self) -> tuple[int, int]:
        """Return the number of running programs, and the bytes of memory that they may take together."""
        with self._lock:
            return self._sums(self._running)

    def ask(self, owner: str, programs: int, memory: int) -> Reservation:
        """Queue for this many programs that may take `memory` bytes together. Pass every reservation to `leave`.

        Raises:
            SandboxError: they exceed the capacity, so there will never be room.
        """
        if programs > self.programs or memory > self.memory:
            raise SandboxError(
                f"{programs} programs with {memory:,} bytes of memory do not fit; all programs together get "
                f"{self.programs} and {self.memory:,} bytes. Lower `limits.memory`, or raise `sandbox.capacity`."
            )
        reservation = Reservation(owner, programs, memory)
        with self._lock:
            self._waiting.setdefault(owner, deque()).append(reservation)
            self._admit()
        return reservation

    def leave(self, reservation: Reservation) -> None:
        """Release the reservation: its programs have ended or no longer wait."""
        with self._lock:
            if reservation in self._running:
                self._running.remove(reservation)
            elif reservation in (queue := self._waiting.get(reservation.owner, deque())):
                queue.remove(reservation)
                if not queue:
                    del self._waiting[reservation.owner]
            self._admit()

    @contextmanager
    def hold(self, owner: str, programs: int, memory: int) -> Iterator[None]:
        """Wait for room, and hold it during the block."""
        reservation = self.ask(owner, programs, memory)
        try:
            reservation.granted.wait()
            yield
        finally:
            self.leave(reservation)

    def _admit(self) -> None:
        while True:
            entitled = (owner for owner, queue in self._waiting.items() if self._within_share(queue[0]))
            owner = next(entitled, None)
            if owner is None:
                return
            reservation = self._waiting[owner][0]
            programs, memory = self._sums([*self._running, reservation])
            if programs > self.programs or memory > self.memory:
                return  # it is this owner's turn, and nobody overtakes it
            queue = self._waiting.pop(owner)
            queue.popleft()
            if queue:
                self._waiting[owner] = queue  # last in the round again
            self._running.append(reservation)
            reservation.granted.set()

    def _within_share(self, reservation: Reservation) -> bool:
        own = [other for other in self._running if other.owner == reservation.owner]
        programs, memory = self._sums([*own, reservation])
        return not own or (programs <= self.programs // 2 and memory <= self.memory // 2)

    @staticmethod
    def _sums(reservations: list[Reservation]) -> tuple[int, int]:
        programs = sum(reservation.programs for reservation in reservations)
        return programs, sum(reservation.memory for reservation in reservations)


def needs(limits: Limits, programs: int = 1) -> int:
    """Return the bytes of memory that programs with these limits may take: their own, a tmpfs, their output."""
    return programs * (limits.memory + limits.disk + limits.output)


def _default(processes: int = 1) -> Gate:
    """Return the default capacity: eight programs, or two per core if more; three quarters of the memory.

    Several processes get a part each. Every part has room for two programs with the default limits, a learner's program
    and its tests.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4
    programs = max(8, 2 * (os.cpu_count() or 1))
    return Gate(max(2, programs // processes), max(memory // processes, _RESERVED))


_gate = _default()


def current() -> Gate:
    """Return the gate that every program of this process passes."""
    return _gate


def capacity(programs: int | None = None, memory: int | None = None) -> None:
    """Set how many programs may run at once in this process, and how many bytes they may take together.

    Programs that already run or wait keep the earlier bound.
    """
    global _gate
    _gate = Gate(programs or _gate.programs, memory or _gate.memory)


def share(processes: int) -> None:
    """Give this process its part of the machine if several processes run programs."""
    global _gate
    _gate = _default(processes)
