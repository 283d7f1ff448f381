"""The learner's progress, rebuilt from the attempts when there are new ones."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from statistics import median
from threading import Lock

from clearhead.course import Attempt, Item, Ledger, Progress
from clearhead.studio.store import Store


@dataclass(frozen=True)
class History:
    """What pages ask of all attempts that count, each worked out once for each new answer."""

    attempts: tuple[Attempt, ...]

    @cached_property
    def by_item(self) -> Mapping[str, list[Attempt]]:
        """Item id -> its attempts, oldest first."""
        found: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in self.attempts:
            found[attempt.item_id].append(attempt)
        return dict(found)

    @cached_property
    def seconds(self) -> Mapping[str, float]:
        """Item id -> the median time it took."""
        took = {id: [one.seconds for one in some if one.seconds is not None] for id, some in self.by_item.items()}
        return {id: median(times) for id, times in took.items() if times}

    @cached_property
    def days(self) -> Counter[date]:
        """Day, in this machine's time zone -> how many answers."""
        return Counter(attempt.at.astimezone().date() for attempt in self.attempts)


class Learner:
    """Keeps the attempts read so far in memory and reads only what was added since; safe to call from any thread."""

    def __init__(self, store: Store, items: Mapping[str, Item]) -> None:
        self._store = store
        self._items = items
        self._ledger = Ledger(items.values())
        self._known: tuple[Progress, History] | None = None
        self._lock = Lock()
        self.set_aside = int(store.kept("start-after", "0"))  # attempts up to this number do not count
        self._newest = self.set_aside

    def start_after(self, number: int | None) -> None:
        """Count only attempts after this number; None is the newest one. The others stay in the store."""
        with self._lock:
            last = self._store.attempts(after=self._newest)
            self.set_aside = (last[-1][0] if last else self._newest) if number is None else number
            self._store.keep("start-after", str(self.set_aside))
            self._newest, self._ledger, self._known = self.set_aside, Ledger(self._items.values()), None

    def known(self) -> tuple[Progress, History]:
        """Schedule, mastery and history as of the newest attempt in the store, whichever tab or process wrote it."""
        with self._lock:
            added = self._store.attempts(after=self._newest)
            if added:
                self._newest = added[-1][0]
            if added or self._known is None:
                progress = self._ledger.add(attempt for _, attempt in added)
                self._known = progress, History(progress.history)
            return self._known
