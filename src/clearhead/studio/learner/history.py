"""A learner's history and progress, updated when there are new attempts."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from statistics import median
from threading import Lock
from typing import NamedTuple

from clearhead.course import Attempt, Item, Ledger, Progress
from clearhead.studio.learner.store import START_AFTER, Store


@dataclass(frozen=True)
class History:
    """The attempts that count, and what pages need to know about them.

    Attributes:
        attempts: oldest first.
        by_item: item id -> its attempts, oldest first.
        seconds: item id -> the median time it took.
        days: day, in this machine's time zone -> how many answers.
    """

    attempts: tuple[Attempt, ...] = ()
    by_item: Mapping[str, Sequence[Attempt]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    days: Counter[date] = field(default_factory=Counter)

    def followed_by(self, attempts: Sequence[Attempt]) -> "History":
        """Return the history of all these attempts. If they continue this history, only the new ones are read."""
        old = len(self.attempts)
        if tuple(attempts[:old]) != self.attempts:
            return History().followed_by(attempts)
        by_item, seconds, days = dict(self.by_item), dict(self.seconds), self.days.copy()
        added: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in attempts[old:]:
            added[attempt.item_id].append(attempt)
            days[attempt.at.astimezone().date()] += 1
        for item, new in added.items():
            by_item[item] = (*by_item.get(item, ()), *new)
            if times := [attempt.seconds for attempt in by_item[item] if attempt.seconds is not None]:
                seconds[item] = median(times)
        return History(tuple(attempts), by_item, seconds, days)


class State(NamedTuple):
    """The state of a learner's store: the number of the newest attempt, and the number up to which none counts."""

    newest: int
    set_aside: int


class Learner:
    """Keeps a learner's attempts in memory and reads only those added since; safe to call from any thread."""

    def __init__(self, store: Store, items: Mapping[str, Item]) -> None:
        self._store = store
        self._items = items
        self._ledger = Ledger(items.values())
        self._known: tuple[Progress, History] | None = None
        self._lock = Lock()
        self.set_aside = self._kept_aside()  # attempts up to this number do not count
        self._newest = self.set_aside

    def start_after(self, number: int | None) -> None:
        """Count only attempts after this number (None: after the newest). The others stay in the store."""
        with self._lock:
            last = self._store.attempts(after=self._newest)
            self.set_aside = (last[-1][0] if last else self._newest) if number is None else number
            self._store.keep(START_AFTER, str(self.set_aside))
            self._start(self.set_aside)

    def known(self, state: State | None = None) -> tuple[Progress, History]:
        """Return schedule, mastery and history as of the newest attempt in the store, whichever process wrote it.

        Args:
            state: the store's state at the start of this request, which saves another query.
        """
        with self._lock:
            if state and self._known and state.newest <= self._newest and state.set_aside == self.set_aside:
                return self._known
            aside, added = self._store.news(after=self._newest)
            if aside != self.set_aside:  # another process of the same studio started over
                self._start(aside)
                added = self._store.attempts(after=aside)
            if added:
                self._newest = added[-1][0]
            if added or self._known is None:
                progress = self._ledger.add(attempt for _, attempt in added)
                before = self._known[1] if self._known else History()
                self._known = progress, before.followed_by(progress.history)
            return self._known

    def _kept_aside(self) -> int:
        return int(self._store.kept(START_AFTER, "0"))

    def _start(self, after: int) -> None:
        self.set_aside = self._newest = after
        self._ledger, self._known = Ledger(self._items.values()), None
