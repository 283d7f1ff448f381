"""When each item is due: FSRS, replayed from the item's attempts."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from fsrs import Card, Rating, Scheduler, State

from clearhead.course.attempt import Attempt, ItemProgress
from clearhead.course.item import Item

_SCHEDULER = Scheduler(enable_fuzzing=False)  # the same attempts always give the same days
_STATES = {State.Learning: "learning", State.Review: "review", State.Relearning: "relearning"}


def schedule(item: Item, attempts: Sequence[Attempt], rating: float) -> ItemProgress:
    """The schedule of one item after these attempts at it, oldest first."""
    if not attempts:
        return ItemProgress(item.id, "new", elo=rating)
    state, due, stability, difficulty, lapses = _replay(tuple((one.at, one.correct) for one in attempts))
    last = attempts[-1]
    if last.item_rev < item.meaning_rev:
        state, due = "changed", last.at
    return ItemProgress(
        item.id, state, due, stability, difficulty, len(attempts), lapses, last.at, last.correct, rating
    )


@lru_cache(maxsize=20_000)  # an undo asks again for every item, and all but one have not changed
def _replay(
    results: tuple[tuple[datetime, bool], ...],
) -> tuple[str, datetime, float | None, float | None, int]:
    """(state, due, stability, difficulty, lapses) after these results."""
    card, lapses = Card(card_id=1), 0
    for at, correct in results:
        lapses += card.state == State.Review and not correct
        card, _ = _SCHEDULER.review_card(card, Rating.Good if correct else Rating.Again, at.astimezone(UTC))
    return _STATES[card.state], card.due, card.stability, card.difficulty, lapses
