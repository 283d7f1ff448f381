"""An assessment (a test or a challenge): questions answered in one go. Pure functions without storage.

The id of each answer is computed from the assessment's id and its place. So the stored attempts say how far an
assessment has come: it survives a restart, and a form sent twice still counts once.
"""

import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median_low

from clearhead.course import Attempt, Challenge, Item
from clearhead.course.pack.item import GRADED_AT_ONCE
from clearhead.studio.text.translation import mark

TEST = GRADED_AT_ONCE  # kinds a test asks
LENGTH = 10
EASIEST, HARDEST = 1, 5

# The five problems of a challenge: name, the kinds that fit it if the author chose none, seconds on its clock.
SLOTS: Mapping[str, tuple[str, tuple[str, ...], int]] = {
    "predict": (mark("Predict the output"), ("predict", "worked"), 120),
    "choose": (mark("Choose the model"), ("choice", "match"), 90),
    "tune": (mark("Tune"), ("tune", "predict"), 120),
    "debug": (mark("Debug"), ("debug", "order"), 120),
    "concept": (mark("Concept"), ("match", "order", "choice"), 150),
}
PLACEMENT = 6  # most questions of a placement test
MISSED = 1  # most wrong answers to pass a placement test
PASS = 0.9  # least share of right answers to pass a test
CLOCKS = {"off": 0.0, "1": 1.0, "1.5": 1.5, "2": 2.0}

Look = Callable[[str], Attempt | None]


def answer_id(assessment_id: str, place: int, attempt: int = 0) -> str:
    """Return the id of an answer, from the question's place and the number of the try."""
    return str(uuid.uuid5(uuid.UUID(assessment_id), f"{place}:{attempt}"))


def new_id() -> str:
    """Return the id of a new assessment."""
    return str(uuid.uuid4())


def answers_so_far(assessment_id: str, look: Look) -> list[Attempt]:
    """Return the answers of a test so far, in order."""
    answers: list[Attempt] = []
    while len(answers) < LENGTH and (answer := look(answer_id(assessment_id, len(answers)))):
        answers.append(answer)
    return answers


def next_item(items: Sequence[Item], answers: Sequence[Attempt], assessment_id: str) -> Item | None:
    """Return the next item of a test; None when the test is over.

    The first is of middling difficulty, then a harder one follows a right answer and an easier one a wrong answer; new
    concepts come first. The same answers give the same item, so a page can be reloaded.
    """
    seen = {answer.item_id for answer in answers}
    left = [item for item in items if item.kind in TEST and item.id not in seen]
    if not left or len(answers) >= LENGTH:
        return None
    level = median_low(item.difficulty for item in items if item.kind in TEST)
    for answer in answers:
        level = min(HARDEST, level + 1) if answer.correct else max(EASIEST, level - 1)
    asked = {concept for item in items if item.id in seen for concept in item.concepts}
    draw = random.Random(f"{assessment_id} {len(answers)}")  # noqa: S311 — a draw, not a secret
    dice = {item.id: draw.random() for item in left}
    return min(left, key=lambda item: (abs(item.difficulty - level), len(asked & set(item.concepts)), dice[item.id]))


@dataclass(frozen=True)
class Problem:
    """One of the five problems of a challenge, and the tries at it so far."""

    place: int
    name: str
    item: Item
    seconds: int
    tries: tuple[Attempt, ...]

    @property
    def left(self) -> int:
        """Tries that are left."""
        return max(0, self.item.attempts - len(self.tries))

    @property
    def solved(self) -> bool:
        """Whether the last try was right."""
        return bool(self.tries) and self.tries[-1].correct

    @property
    def over(self) -> bool:
        """Whether it is solved, or no try is left."""
        return self.solved or self.left == 0

    def in_time(self, factor: float) -> bool:
        """Whether the last try was in time; always true with the clock off."""
        took = self.tries[-1].seconds if self.tries else None
        return not factor or (took is not None and took <= self.seconds * factor)


def problems(items: Sequence[Item], assessment_id: str, look: Look, chosen: Challenge | None = None) -> list[Problem]:
    """Return the problems of a challenge, with the tries so far.

    Args:
        chosen: the author's five. None: draw one per slot, by the id, from the harder items of a fitting kind.
    """
    problems = []
    for place, (slot, item) in enumerate(_drawn(items, assessment_id) if chosen is None else _written(items, chosen)):
        name, _kinds, seconds = SLOTS[slot]
        tries: list[Attempt] = []
        while len(tries) < item.attempts and (attempt := look(answer_id(assessment_id, place, len(tries)))):
            tries.append(attempt)
        problems.append(Problem(place, name, item, max(seconds, item.time_limit), tuple(tries)))
    return problems


def offered(challenges: Sequence[Challenge], items: Sequence[Item]) -> list[Challenge]:
    """Return the challenges whose five problems are all proved."""
    there = {item.id for item in items}
    return [challenge for challenge in challenges if there.issuperset(challenge.problems.values())]


def _written(items: Sequence[Item], chosen: Challenge) -> list[tuple[str, Item]]:
    known = {item.id: item for item in items}
    return [(slot, known[id]) for slot, id in chosen.problems.items()]


def _drawn(items: Sequence[Item], assessment_id: str) -> list[tuple[str, Item]]:
    draw = random.Random(assessment_id)  # noqa: S311 — a draw, not a secret
    used: set[str] = set()
    drawn = []
    for slot, (_name, kinds, _seconds) in SLOTS.items():
        pool = next((fit for kind in kinds if (fit := _of(items, kind, used))), [])
        if pool:
            hard = sorted(pool, key=lambda item: -item.difficulty)[: max(3, len(pool) // 2)]
            item = draw.choice(hard)
            used.add(item.id)
            drawn.append((slot, item))
    return drawn


def passed(answers: Sequence[Attempt]) -> bool:
    """Return whether these answers pass a test: all were given and nearly all were right."""
    return len(answers) == LENGTH and sum(answer.correct for answer in answers) >= needed(LENGTH)


def needed(bank: int) -> int:
    """Return how many right answers pass a test drawn from `bank` questions; 0 if they are too few for a test."""
    return ceil(PASS * LENGTH) if bank >= LENGTH else 0


def placement_over(answers: Sequence[Attempt], count: int) -> bool:
    """Return whether a placement test of `count` questions is decided."""
    return len(answers) >= count or _wrong(answers) > MISSED


def placed(answers: Sequence[Attempt], count: int) -> bool:
    """Return whether these answers let the learner skip the topic: all were given, and at most one was wrong."""
    return len(answers) >= count and _wrong(answers) <= MISSED


def _wrong(answers: Sequence[Attempt]) -> int:
    return sum(not answer.correct for answer in answers)


def _of(items: Sequence[Item], kind: str, used: set[str]) -> list[Item]:
    return [item for item in items if item.kind == kind and item.id not in used]
