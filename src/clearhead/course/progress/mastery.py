"""Mastery of each concept: a moving average of results, and whether a success came at least a day later."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta

from clearhead.course.pack.item import Item
from clearhead.course.progress.attempt import Attempt, Mastery

WEIGHT = 0.3  # weight of the newest result in a concept's moving average
GOOD = 0.7  # a concept is "good" from this average on
DELAY = timedelta(hours=20)  # a success this long after the last attempt counts as delayed: on the next day


class Concepts:
    """Accumulates attempts in order of time; `result` returns the mastery of each concept."""

    def __init__(self, course: Mapping[str, Item]) -> None:
        self._course = course
        self._holders: dict[str, list[str]] = defaultdict(list)
        for item in course.values():
            for concept in item.concepts:
                self._holders[concept].append(item.id)
        self._value: dict[str, float] = defaultdict(float)
        self._count: dict[str, int] = defaultdict(int)
        self._last: dict[str, datetime] = {}
        self._delayed: set[str] = set()

    def see(self, attempt: Attempt) -> None:
        """Count one attempt."""
        item = self._course.get(attempt.item_id)
        for concept in item.concepts if item else ():
            if attempt.correct and concept in self._last and attempt.at - self._last[concept] >= DELAY:
                self._delayed.add(concept)
            self._value[concept] += WEIGHT * ((1.0 if attempt.correct else 0.0) - self._value[concept])
            self._count[concept] += 1
            self._last[concept] = attempt.at

    def result(self) -> dict[str, Mastery]:
        """Return concept -> Mastery."""
        return {
            concept: Mastery(
                concept,
                self._value[concept],
                self._level(concept),
                self._count[concept],
                tuple(ids),
                self._last.get(concept),
            )
            for concept, ids in self._holders.items()
        }

    def _level(self, concept: str) -> str:
        if self._count[concept] == 0:
            return "new"
        if self._value[concept] < GOOD:
            return "learning"
        return "strong" if concept in self._delayed else "good"
