"""The learner's progress, rebuilt from the attempts when there are new ones."""

from collections.abc import Mapping
from threading import Lock

from clearhead.course import Attempt, Item, Progress, rebuild
from clearhead.studio.store import Store


class Learner:
    """Keeps the attempts read so far in memory and reads only what was added since; safe to call from any thread."""

    def __init__(self, store: Store, items: Mapping[str, Item]) -> None:
        self._store = store
        self._items = items
        self._attempts: list[Attempt] = []
        self._newest = 0
        self._progress: Progress | None = None
        self._lock = Lock()

    def progress(self) -> Progress:
        """Schedule and mastery as of the newest attempt in the store, whichever tab or process wrote it."""
        with self._lock:
            added = self._store.attempts(after=self._newest)
            if added:
                self._newest = added[-1][0]
                self._attempts.extend(attempt for _, attempt in added)
            if added or self._progress is None:
                self._progress = rebuild(self._items.values(), self._attempts)
            return self._progress
