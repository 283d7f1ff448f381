"""The review queue: which questions are due and which one comes next. Pure functions of items, progress and time."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from clearhead.course import Item, ItemProgress, Progress

# An item that was just answered wrong is due in minutes. If nothing else is left, it is asked now instead of making the
# learner wait.
AHEAD = timedelta(minutes=20)
SECONDS = {"card": 12, "code": 300, "explain": 120, "worked": 120}  # until the learner's own times are known


def due(items: Iterable[Item], progress: Progress, now: datetime) -> list[Item]:
    """Return the items to review now, the most overdue first."""
    known = {item.id: item for item in items}
    return [known[id] for id in progress.due(now) if id in known]


def next_item(
    items: Sequence[Item], progress: Progress, now: datetime, *, after: str = "", spaced: timedelta = timedelta()
) -> Item | None:
    """Return the next item: due ones, then new ones (easy first), then those due within minutes; None if there is none.

    Args:
        after: the item just answered: it is not repeated while there is another.
        spaced: an item that was answered less than this long ago is not repeated ahead of its time.
    """
    state = progress.items
    new = sorted((item for item in items if state[item.id].state == "new"), key=lambda item: item.difficulty)
    soon = [
        item
        for item in due(items, progress, now + AHEAD)
        if state[item.id].due != now and not _fresh(state[item.id], now, spaced)
    ]
    queue = [*due(items, progress, now), *new, *soon]
    others = [item for item in queue if item.id != after]
    return next(iter(others or queue), None)


def _fresh(state: ItemProgress, now: datetime, spaced: timedelta) -> bool:
    return state.last is not None and now - state.last < spaced


def least_recent(items: Sequence[Item], progress: Progress, *, after: str = "") -> Item | None:
    """Return the item that was asked longest ago, for a learner who wants more although nothing is due."""
    long_ago = sorted(items, key=lambda item: (str(progress.items[item.id].last or ""), item.difficulty))
    others = [item for item in long_ago if item.id != after]
    return next(iter(others or long_ago), None)


def next_due(items: Iterable[Item], progress: Progress) -> datetime | None:
    """Return when the first of these items is due again."""
    times = [state.due for item in items if (state := progress.items[item.id]).due is not None]
    return min(times, default=None)


def minutes(items: Iterable[Item], seconds: Mapping[str, float]) -> int:
    """Return how many minutes these questions will take, by the learner's own median times where they are known."""
    items = list(items)
    total = sum(min(seconds.get(item.id, SECONDS.get(item.kind, 45)), 600) for item in items)
    return max(1, round(total / 60)) if items else 0


def last_was_right(state: ItemProgress) -> bool:
    """Return whether the last answer to this item was right."""
    return bool(state.last_correct)
