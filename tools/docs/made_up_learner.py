"""Make up five weeks of a learner's practice, for the pictures of Home, Progress and Mistakes.

The answers are drawn with a fixed seed; the course decides which are right.
"""

import random
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from clearhead.course import Attempt, Item, Proved
from clearhead.studio.learner.confidence import LEVELS
from clearhead.studio.learner.database import Database
from clearhead.studio.learner.store import Store
from clearhead.studio.library.library import Library, fill

DAYS = (34, 33, 31, 30, 28, 27, 26, 24, 20, 19, 17, 16, 14, 13, 12, 10, 9, 7, 6, 5, 3, 2, 1)  # days ago
TOPICS = ("attention-in-depth", "self-and-multi-head")
KINDS = ("card", "choice", "predict", "debug", "tune")
PLACE = '["/topics/attention/self-and-multi-head/walk", "Self-attention and multi-head attention", "Walk"]'


def practise(data: Path) -> None:
    """Fill the database in this folder, in which the course is already proved."""
    library = fill(None, data / "proofs")
    store = Store(Database(data))
    for attempt in answers(library, datetime.now(UTC)):
        store.record(attempt)
    store.keep("continue", PLACE)
    store.close()


def answers(library: Library, now: datetime) -> list[Attempt]:
    """Return the learner's answers: a few new questions a day, more often right the second and third time."""
    draw = random.Random(7)  # noqa: S311 — made-up answers
    new = [item for topic in TOPICS for item in library.items.values() if item.topic == topic and item.kind in KINDS]
    draw.shuffle(new)
    right: Counter[str] = Counter()
    met: list[Item] = []
    found = []
    for ago in DAYS:
        at = now - timedelta(days=ago) + timedelta(minutes=draw.randint(-90, 90))
        fresh, new = new[: draw.randint(3, 6)], new[6:]
        again = draw.sample(met, min(len(met), draw.randint(3, 14)))
        met += fresh
        for item in [*again, *fresh]:
            chance = min(0.93, 0.58 + 0.17 * right[item.id])
            correct = draw.random() < chance
            right[item.id] += correct
            at += timedelta(seconds=draw.randint(12, 70))
            found.append(_attempt(item, library.proved[item.id], at, correct, chance, draw))
    return found


def _attempt(item: Item, proved: Proved, at: datetime, correct: bool, chance: float, draw: random.Random) -> Attempt:
    sure = None
    if item.kind != "card" and draw.random() < 0.7:  # overconfident, as people are
        sure = min(LEVELS, key=lambda level: abs(level.stated - chance - draw.uniform(-0.3, 0.35))).stated
    return Attempt(
        id=str(uuid.UUID(int=draw.getrandbits(128), version=4)),
        item_id=item.id,
        item_rev=item.rev,
        at=at,
        mode="recall" if item.kind == "card" else "practice",
        correct=correct,
        response=_response(item, proved, correct, draw),
        seconds=float(draw.randint(5, 60)),
        seed=proved.receipt.seed,
        confidence=sure,
    )


def _response(item: Item, proved: Proved, correct: bool, draw: random.Random) -> object:
    if item.kind == "card":
        return "good" if correct else "again"
    keys = [option.key for option in proved.options if option.correct == correct]
    if item.right > 1:
        return keys if correct else [draw.choice(keys)]
    return keys[0] if correct else draw.choice(keys)
