"""Today's helping: what Home offers and Review puts, one sitting at a time, so that no number is a burden.

A sitting is short. What was answered with "sure" and was wrong comes first, then what is overdue; new questions fill
it up, a few a day, and none while more is due than one sitting holds. What is left waits, and is told quietly.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from clearhead.course import Attempt, Item, Progress
from clearhead.studio.learner import review_queue

SESSION_LENGTH = 15  # questions
NEW_PER_SESSION, NEW_PER_DAY = 5, 10
LONGEST = 4 * 60 * 60  # seconds after which a sitting that was left is another one
SLOW = ("code", "explain")  # kinds that are met in their topic, at leisure


@dataclass(frozen=True)
class ReviewSession:
    """What one sitting asks.

    Attributes:
        again: questions to see again, the most pressing first.
        new: questions never answered, the easy ones first.
        waiting: how many are due besides.
    """

    again: tuple[Item, ...]
    new: tuple[Item, ...]
    waiting: int

    @property
    def items(self) -> tuple[Item, ...]:
        """All of it, in the order it is asked."""
        return self.again + self.new


def plan_session(
    items: Iterable[Item],
    fresh: Iterable[Item],
    progress: Progress,
    by_item: Mapping[str, Sequence[Attempt]],
    now: datetime,
    room: int = SESSION_LENGTH,
) -> ReviewSession:
    """Choose what a sitting asks.

    Args:
        items: all that may be asked again.
        fresh: those new ones may be taken from, in any order.
        by_item: item id -> its attempts, oldest first.
        room: how many questions the sitting still holds.
    """
    pressing = {id: place for place, id in enumerate(progress.calibration.confident_errors)}
    due = sorted(review_queue.due(items, progress, now), key=lambda item: pressing.get(item.id, len(pressing)))
    room = max(0, room)
    again = tuple(due[:room])
    free = min(room - len(again), NEW_PER_SESSION, NEW_PER_DAY - first_answered_on(by_item, now.astimezone().date()))
    unmet = (item for item in fresh if progress.items[item.id].state == "new" and item.kind not in SLOW)
    new = sorted(unmet, key=lambda item: item.difficulty)[: max(0, free)]
    return ReviewSession(again, tuple(new), len(due) - len(again))


def first_answered_on(by_item: Mapping[str, Sequence[Attempt]], day: date) -> int:
    """How many questions were answered for the first time on this day, in this machine's time zone."""
    return sum(attempts[0].at.astimezone().date() == day for attempts in by_item.values() if attempts)


def start_of(since: int, now: datetime) -> int:
    """When the sitting began, in seconds since 1970: as the address says, or now where that makes no sense."""
    moment = int(now.timestamp())
    return since if moment - LONGEST < since <= moment else moment


def answers_since(history: Sequence[Attempt], since: int) -> list[Attempt]:
    """The answers of a sitting, newest first."""
    answers = []
    for attempt in reversed(history):
        if attempt.at.timestamp() < since:
            break
        if attempt.mode == "review":
            answers.append(attempt)
    return answers
