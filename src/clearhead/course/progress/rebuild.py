"""Derive schedule, mastery, difficulty and calibration from attempts, as a pure function of the arguments.

Attempts are append-only; state is never stored, so an undo, an edited item or a new algorithm costs one call. The
order of the arguments does not matter: attempts are sorted by time and id, and one sent twice counts once.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo

from clearhead.course.pack.item import Item
from clearhead.course.progress import elo
from clearhead.course.progress.attempt import Attempt, ItemProgress, Progress
from clearhead.course.progress.calibration import Confidence
from clearhead.course.progress.mastery import DELAY, Concepts
from clearhead.course.progress.schedule import Replay, schedule


def rebuild(items: Iterable[Item], attempts: Iterable[Attempt]) -> Progress:
    """Derive a learner's progress.

    Args:
        items: of the course, in order. Attempts at removed items stay in the history and count for nothing else.
        attempts: in any order, repeats allowed.
    """
    return Ledger(items).add(attempts)


class Ledger:
    """Incremental `rebuild`: each `add` returns what `rebuild` returns for all attempts so far.

    A new answer costs a few milliseconds, however many came before. An attempt that is older than the newest, or undoes
    another, rebuilds everything. Not thread-safe.

    >>> from clearhead.course.pack.item import Item
    >>> ledger = Ledger([Item("i", "card", "t", 1, "?", ".", "items/i.md", "")])
    >>> ledger.add([Attempt("1", "i", 1, datetime(2026, 3, 1, tzinfo=UTC), "recall", True)]).items["i"].attempts
    1
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._course = {item.id: item for item in items}
        self._all: dict[str, Attempt] = {}
        self._undone: set[str] = set()
        self._replays: dict[str, Replay] = defaultdict(Replay)  # they outlast a fresh start: most items did not change
        self._start()

    def _start(self) -> None:
        self._history: tuple[Attempt, ...] = ()
        self._by_item: dict[str, list[Attempt]] = defaultdict(list)
        self._ratings = elo.Ratings({name: item.difficulty for name, item in self._course.items()}, DELAY)
        self._concepts, self._confidence = Concepts(self._course), Confidence()
        self._items: dict[str, ItemProgress] = {}

    def add(self, attempts: Iterable[Attempt]) -> Progress:
        """Count these attempts too."""
        fresh = sorted((attempt for attempt in attempts if self._all.get(attempt.id) != attempt), key=_when)
        repeated = len({attempt.id for attempt in fresh}) < len(fresh)
        simple = not repeated and not any(
            attempt.undoes or attempt.id in self._all or attempt.id in self._undone for attempt in fresh
        )
        for attempt in fresh:
            if attempt.id not in self._all or _when(attempt) < _when(self._all[attempt.id]):
                self._all[attempt.id] = attempt
            if attempt.undoes:
                self._undone.add(attempt.undoes)
        if simple and not (fresh and self._history and _when(fresh[0]) < _when(self._history[-1])):
            self._see(fresh)
        else:
            self._start()
            self._see(counted(self._all.values()))
        return Progress(
            self._schedules(), self._concepts.result(), self._ratings.ability, self._confidence.result(), self._history
        )

    def _see(self, attempts: Iterable[Attempt]) -> None:
        """Process these attempts, which are later than all before."""
        more = tuple(attempts)
        self._history += more
        for attempt in more:
            self._by_item[attempt.item_id].append(attempt)
            self._items.pop(attempt.item_id, None)
            for part in (self._ratings, self._concepts, self._confidence):
                part.see(attempt)

    def _schedules(self) -> dict[str, ItemProgress]:
        """Return the schedule of every item, in course order; only items answered since are computed again."""
        for name, item in self._course.items():
            if name not in self._items:
                self._items[name] = schedule(item, self._by_item[name], self._ratings.of[name], self._replays[name])
        return {name: self._items[name] for name in self._course}


def counted(attempts: Iterable[Attempt]) -> tuple[Attempt, ...]:
    """Return the attempts that count, oldest first: without repeats, undone attempts and undos."""
    unique = {attempt.id: attempt for attempt in sorted(attempts, key=_when, reverse=True)}
    undone = {attempt.undoes for attempt in unique.values() if attempt.undoes}
    kept = (attempt for attempt in unique.values() if attempt.undoes is None and attempt.id not in undone)
    return tuple(sorted(kept, key=_when))


def _when(attempt: Attempt) -> tuple[datetime, str]:
    return attempt.at, attempt.id


def study_day(at: datetime, zone: tzinfo, starts: int = 4) -> datetime:
    """Return the start (UTC) of the learner's day that contains `at`; days begin at hour `starts` in their zone.

    >>> from zoneinfo import ZoneInfo
    >>> study_day(datetime(2026, 7, 1, 1, tzinfo=UTC), ZoneInfo("Europe/Berlin")).isoformat()
    '2026-06-30T02:00:00+00:00'
    """
    local = at.astimezone(zone)
    day = local.date() if local.hour >= starts else local.date() - timedelta(days=1)
    return datetime(day.year, day.month, day.day, starts, tzinfo=zone).astimezone(UTC)
