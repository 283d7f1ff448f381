"""A review session: a short list of due and new questions, which Home offers and Review asks.

Wrong answers that were given as "sure" come first, then what is overdue. New questions fill up the session, a few a
day, and none while more is due than a session holds. The rest waits for the next session.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from clearhead.course import Attempt, Item, Progress
from clearhead.studio.learner import review_queue

SESSION_LENGTH = 15  # questions
NEW_PER_SESSION, NEW_PER_DAY = 5, 10
LONGEST = 4 * 60 * 60  # seconds after which an abandoned session has ended
SLOW = ("code", "explain")  # kinds that take long; new items of these kinds are asked only in their topic


@dataclass(frozen=True)
class ReviewSession:
    """The questions of one session.

    Attributes:
        again: questions to review, the most pressing first.
        new: questions never answered, the easy ones first.
        waiting: how many more are due.
    """

    again: tuple[Item, ...]
    new: tuple[Item, ...]
    waiting: int

    @property
    def items(self) -> tuple[Item, ...]:
        """All questions, in the order they are asked."""
        return self.again + self.new


def plan_session(
    items: Iterable[Item],
    fresh: Iterable[Item],
    progress: Progress,
    by_item: Mapping[str, Sequence[Attempt]],
    now: datetime,
    room: int = SESSION_LENGTH,
) -> ReviewSession:
    """Choose the questions of a session.

    Args:
        items: all that may be reviewed.
        fresh: items that new questions may be taken from, in any order.
        by_item: item id -> its attempts, oldest first.
        room: how many questions the session still has room for.
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
    """Return how many questions were answered for the first time on this day, in this machine's time zone."""
    return sum(attempts[0].at.astimezone().date() == day for attempts in by_item.values() if attempts)


def start_of(since: int, now: datetime) -> int:
    """Return when the session began, in seconds since 1970: `since`, or now if that is not a recent moment."""
    moment = int(now.timestamp())
    return since if moment - LONGEST < since <= moment else moment


def answers_since(history: Sequence[Attempt], since: int) -> list[Attempt]:
    """Return the answers of a session, newest first."""
    answers = []
    for attempt in reversed(history):
        if attempt.at.timestamp() < since:
            break
        if attempt.mode == "review":
            answers.append(attempt)
    return answers
