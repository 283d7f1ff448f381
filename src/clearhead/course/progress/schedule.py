"""Schedule reviews: FSRS, replayed from each item's attempts."""

from collections.abc import Sequence
from datetime import UTC, datetime

from fsrs import Card, Rating, Scheduler, State

from clearhead.course.pack.item import Item
from clearhead.course.progress.attempt import Attempt, ItemProgress

_SCHEDULER = Scheduler(enable_fuzzing=False)  # no fuzzing: the same attempts always give the same days
_STATES = {State.Learning: "learning", State.Review: "review", State.Relearning: "relearning"}


class Replay:
    """FSRS over the attempts at one item. Computes only the new attempts if they extend those replayed before."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._seen: list[tuple[datetime, bool]] = []
        self._lapses, self._card = 0, Card(card_id=1)

    def of(self, attempts: Sequence[Attempt]) -> tuple[Card, int]:
        """Return the card after these attempts, oldest first, and how often it was forgotten after it was learned."""
        results = [(attempt.at, attempt.correct) for attempt in attempts]
        if results[: len(self._seen)] != self._seen:
            self._start()
        for at, correct in results[len(self._seen) :]:
            self._lapses += self._card.state == State.Review and not correct
            rating = Rating.Good if correct else Rating.Again
            self._card, _ = _SCHEDULER.review_card(self._card, rating, at.astimezone(UTC))
        self._seen = results
        return self._card, self._lapses


def schedule(item: Item, attempts: Sequence[Attempt], rating: float, replay: Replay) -> ItemProgress:
    """Return the schedule of an item after these attempts at it, oldest first; `replay` belongs to the item."""
    if not attempts:
        return ItemProgress(item.id, "new", elo=rating)
    card, lapses = replay.of(attempts)
    state, due, last = _STATES[card.state], card.due, attempts[-1]
    if last.item_rev < item.meaning_rev:
        state, due = "changed", last.at
    return ItemProgress(
        item.id, state, due, card.stability, card.difficulty, len(attempts), lapses, last.at, last.correct, rating
    )
