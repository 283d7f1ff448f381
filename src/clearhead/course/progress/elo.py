"""Elo ratings of items and learners. Both start at 1500; 400 points are odds of ten to one."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta

from clearhead.course.progress.attempt import Attempt

START = 1500.0
STEP = 32.0  # points that one surprising result moves; halved for a learner or item with many results


def expected(ability: float, difficulty: float) -> float:
    """Return the probability that a learner of this ability gets an item of this difficulty right.

    >>> expected(1500, 1500), round(expected(1900, 1500), 3)
    (0.5, 0.909)
    """
    return float(1.0 / (1.0 + 10.0 ** ((difficulty - ability) / 400.0)))


def update(ability: float, difficulty: float, correct: bool, seen: int = 0) -> tuple[float, float]:
    """Return both ratings after a result; `seen` is the number of earlier results of the item. Their sum is constant.

    >>> update(1500, 1500, True)
    (1516.0, 1484.0)
    """
    step = STEP / (1.0 + seen / 10.0)
    moved = step * ((1.0 if correct else 0.0) - expected(ability, difficulty))
    return ability + moved, difficulty - moved


def prior(difficulty: int) -> float:
    """Return the first rating of an item: the author's 1..5 as 1300..1700."""
    return START + 100.0 * (difficulty - 3)


class Ratings:
    """Accumulates attempts in order of time. Only the first attempt at an item after a break counts, not retries.

    Attributes:
        ability: the learner's. of: item id -> its difficulty.
    """

    def __init__(self, difficulties: Mapping[str, int], gap: timedelta) -> None:
        self.ability, self.of, self._gap = START, {item_id: prior(hard) for item_id, hard in difficulties.items()}, gap
        self._seen: dict[str, int] = defaultdict(int)
        self._last: dict[str, datetime] = {}

    def see(self, attempt: Attempt) -> None:
        """Count one attempt."""
        item_id = attempt.item_id
        fresh = item_id not in self._last or attempt.at - self._last[item_id] >= self._gap
        self._last[item_id] = attempt.at
        if item_id in self.of and fresh:
            self.ability, self.of[item_id] = update(
                self.ability, self.of[item_id], attempt.correct, self._seen[item_id]
            )
            self._seen[item_id] += 1
