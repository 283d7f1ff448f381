"""Attempts, and the types derived from them. An attempt is never changed; an undo is another attempt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """One graded response.

    Attributes:
        id: a uuid, created when the question is asked, so that a response sent twice counts once.
        item_rev: the item's rev when it was answered.
        at: UTC, aware.
        mode: where it was answered ("practice", "recall" …).
        response: what `grade` was given.
        seconds: from question to response; None if unknown.
        seed: of the variant shown.
        confidence: 0..1, if the learner stated it before answering.
        hints: hints seen before answering.
        undoes: id of the attempt that this one takes back; the other fields then do not count.
    """

    id: str
    item_id: str
    item_rev: int
    at: datetime
    mode: str
    correct: bool
    response: object = None
    seconds: float | None = None
    seed: int = 0
    confidence: float | None = None
    hints: int = 0
    undoes: str | None = None


@dataclass(frozen=True, slots=True)
class ItemProgress:
    """The schedule of one item.

    Attributes:
        due: UTC; None for an item never answered.
        state: "new", "learning", "review", "relearning", or "changed" (edited in meaning since the last answer).
        stability: days until recall falls to 90 %; None before the first review.
        elo: the item's difficulty; at 1500 the average learner has even odds.
    """

    item_id: str
    state: str
    due: datetime | None = None
    stability: float | None = None
    difficulty: float | None = None
    attempts: int = 0
    lapses: int = 0
    last: datetime | None = None
    last_correct: bool | None = None
    elo: float = 1500.0


@dataclass(frozen=True, slots=True)
class Mastery:
    """How well a concept is known. `level`: "new", "learning", "good", or "strong" (good, and right a day later)."""

    concept: str
    value: float
    level: str
    attempts: int
    items: tuple[str, ...] = ()
    last: datetime | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """How well stated confidence matches being right, over the attempts that stated one.

    Attributes:
        bins: (stated, share right, count) for each used band of confidence.
        brier: mean squared difference of confidence and outcome; 0 is perfect, 0.25 is a coin.
        confident_errors: item ids answered wrong with a confidence of at least 0.8 and not right since, worst first.
    """

    count: int
    brier: float | None
    bins: tuple[tuple[float, float, int], ...] = ()
    confident_errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything derived from the attempts by `rebuild`. It is never stored.

    Attributes:
        items: item id -> ItemProgress, for every item of the course, answered or not.
        concepts: concept -> Mastery.
        ability: the learner's Elo.
        history: the attempts that count (after undo and without repeats), oldest first.
    """

    items: Mapping[str, ItemProgress] = field(default_factory=dict)
    concepts: Mapping[str, Mastery] = field(default_factory=dict)
    ability: float = 1500.0
    calibration: Calibration = Calibration(0, None)
    history: tuple[Attempt, ...] = ()

    def due(self, now: datetime) -> list[str]:
        """Return the ids of the items due at `now` (UTC, aware), the most overdue first. New items are not due."""
        waiting = [item for item in self.items.values() if item.due is not None and item.due <= now]
        return [item.item_id for item in sorted(waiting, key=lambda item: (item.due, item.item_id))]

    def new(self) -> list[str]:
        """Return the ids of the items never answered, in course order."""
        return [item.item_id for item in self.items.values() if item.state == "new"]

    def weakest(self, count: int = 3) -> list[Mastery]:
        """Return the least known concepts among those tried, weakest first."""
        tried = [mastery for mastery in self.concepts.values() if mastery.attempts and mastery.level != "strong"]
        return sorted(tried, key=lambda mastery: (mastery.value, mastery.concept))[:count]
