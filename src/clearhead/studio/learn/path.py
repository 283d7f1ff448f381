"""The path through a topic, in parts of about a quarter of an hour: read, touch a figure, predict, recall, build.

A page counts as done when it was opened, a question when it was answered: a wrong answer comes back in the review.
"""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from clearhead.course import Item, Pack, Topic
from clearhead.course.pack.minutes import WALK_MINUTES, item_minutes, page_minutes
from clearhead.studio.questions.assessment import TEST
from clearhead.studio.questions.question import ASKED
from clearhead.studio.text.translation import mark
from clearhead.studio.web.context import Context

CONTINUE = "continue"  # store key of the page that Home offers to continue from
PASSED = "passed:"  # how the store keys of passed topics begin
PART = 15  # target length of a part, in minutes
FEWEST = 5  # questions that a placement test needs
WALKED = {"logits", "weights", "heads", "multi-head", "concatenation"}  # the concepts that the figure of Walk shows
MEASURED = WALKED | {"scaling", "cost", "softmax"}  # those that Experiment measures
# The order of the kinds within a part: predictions, then other questions, cards, a line to fix, the learner's own code.
KINDS = ("predict", "choice", "match", "order", "tune", "worked", "explain", "card", "debug", "code")
ORDER = ("read", "walk", "why", *KINDS)
NAMES = {
    "read": mark("Read a page"),
    "why": mark("See why, measured"),
    "walk": mark("Touch a figure"),
    "predict": mark("Predict an output"),
    "card": mark("Recall a card"),
    "debug": mark("Fix a line"),
    "code": mark("Build a piece"),
}


@dataclass(frozen=True)
class Step:
    """One page or one question of a path; `part` counts from 0."""

    part: int
    kind: str
    address: str
    minutes: float
    item: Item | None = None

    @property
    def key(self) -> str:
        """The step's name in an address: the item's id, or the mode of the page."""
        return self.item.id if self.item else self.kind

    @property
    def name(self) -> str:
        """What the learner does there, in English; a template translates it."""
        return NAMES.get(self.kind, mark("Answer a question"))


@dataclass(frozen=True)
class Way:
    """How far the learner has come on a topic's path.

    Attributes:
        part: the part of the next step, from 1; the last part if nothing is left.
        left: whole minutes to the end of this part. place, steps: the next step's place in its part, from 1.
        next: the next step; None if nothing is left.
        waits: whether answers of this topic are still being computed, so that steps may be added.
    """

    pack: Pack
    topic: Topic
    parts: int
    part: int
    place: int
    steps: int
    left: int
    next: Step | None
    waits: bool = False

    @property
    def begun(self) -> bool:
        """Whether any step before the next one is done."""
        return self.part > 1 or self.place > 1


def figure_of_walk(pack: Pack, topic: Topic) -> str:
    """Return which figure Walk shows for this topic; "" for none.

    If the topics of a pack name neither figures nor experiments, a topic's concepts decide.
    """
    if _declares(pack):
        return topic.walk
    return "heads" if any(WALKED.intersection(item.concepts) for item in pack.items_of(topic.id)) else ""


def experiments_of(pack: Pack, topic: Topic) -> tuple[str, ...]:
    """Return which experiments this topic has, its own first."""
    if _declares(pack):
        return topic.experiments
    concepts = {concept for item in pack.items_of(topic.id) for concept in item.concepts}
    return ("heads", "scale", "length", "hard") if MEASURED & concepts else ()


def _declares(pack: Pack) -> bool:
    return any(topic.walk or topic.experiments for topic in pack.topics)


def has_walk(pack: Pack, topic: Topic) -> bool:
    """Return whether Walk has something to show for this topic."""
    return "walk" in topic.pages or bool(figure_of_walk(pack, topic))


def can_be_skipped(context: Context, pack: Pack, topic: Topic) -> bool:
    """Return whether this topic has a placement test: other topics build on it, and it has enough questions."""
    stood_on = any(topic.id in other.needs for other in pack.topics)
    return stood_on and sum(item.kind in TEST for item in context.library.items_of(pack, topic)) >= FEWEST


@lru_cache(maxsize=1000)  # cached: for the shipped course it takes longer than the rest of Home
def steps_of(pack: Pack, topic: Topic) -> tuple[Step, ...]:
    """Return every step of a topic's path, in order, whether it is proved or not, so that parts stay as they are."""
    pages = [
        mode for mode in ("read", "walk", "why") if mode in topic.pages or (mode == "walk" and has_walk(pack, topic))
    ]
    items = sorted((item for item in pack.items_of(topic.id) if item.kind in ASKED), key=lambda item: item.difficulty)
    reading = {mode: page_minutes(topic.pages[mode]) if mode in topic.pages else WALK_MINUTES for mode in pages}
    total = sum(reading.values()) + sum(map(item_minutes, items))
    parts = max(1, round(total / PART))
    here = f"/topics/{pack.id}/{topic.id}"
    # The first two pages open the first part; a third opens the second.
    steps = [
        Step(min(place // 2, parts - 1), mode, f"{here}/{mode}", reading[mode]) for place, mode in enumerate(pages)
    ]
    load = [sum(step.minutes for step in steps if step.part == part) for part in range(parts)]
    kinds = {kind: [item for item in items if item.kind == kind] for kind in KINDS}
    usual = {kind: sum(map(item_minutes, same)) / len(same) for kind, same in kinds.items() if same}
    built: set[int] = set()  # the parts with a Build step; in the others a line is fixed first
    for kind in sorted(usual, key=lambda kind: -usual[kind]):  # longest first, so that short ones balance the parts
        first = [part for part in range(parts) if part not in built] if kind == "debug" else []
        spread = _spread(len(kinds[kind]), usual[kind], load, first)
        if kind == "code":
            built.update(spread)
        for item, part in zip(kinds[kind], spread, strict=True):
            steps.append(Step(part, kind, f"/items/{item.id}?mode=path", item_minutes(item), item))
    return tuple(sorted(steps, key=lambda step: (step.part, ORDER.index(step.kind))))


def _spread(count: int, minutes: float, load: list[float], first: Sequence[int] = ()) -> list[int]:
    """Return the parts of `count` items of one kind, ascending, and add their minutes to the load.

    First, one item goes into each part of `first`. The rest is spread evenly, and the remainder goes where the load is
    smallest.
    """
    parts = list(first[:count])
    each = (count - len(parts)) // len(load)
    parts += [part for part in range(len(load)) for _ in range(each)]
    for part in parts:
        load[part] += minutes
    while len(parts) < count:
        least = load.index(min(load))
        parts.append(least)
        load[least] += minutes
    return sorted(parts)


def passed_on(context: Context, pack: Pack, topic: Topic) -> str:
    """Return the day on which the learner passed this topic's test, or ""."""
    return context.store.kept(f"{PASSED}{pack.id}/{topic.id}")


def keep_passed(context: Context, pack: Pack, topic: Topic, at: datetime) -> None:
    """Store the day on which the learner passed this topic's test, or was placed after it."""
    context.store.keep(f"{PASSED}{pack.id}/{topic.id}", f"{at:%Y-%m-%d}")


def way(context: Context, pack: Pack, topic: Topic) -> Way:
    """Return how far the learner has come in this topic. After passing the topic's test, nothing is left."""
    passed = {f"{pack.id}/{topic.id}"} if passed_on(context, pack, topic) else set()
    return _way(context, pack, topic, context.store.kept_under("opened:").keys(), passed)


@dataclass(frozen=True)
class Trail:
    """Where a learner has been, from the store.

    Attributes:
        opened: addresses of opened pages. passed: topics whose tests were passed, as "pack/topic".
        last: the page to continue from, as `home.remember` stored it; "" for none.
    """

    opened: Set[str]
    passed: Set[str]
    last: str


def trail(context: Context) -> Trail:
    """Return where the learner has been, in one statement."""
    opened, passed, last = context.store.kept_under_each("opened:", PASSED, CONTINUE)
    return Trail(opened.keys(), passed.keys(), last.get("", ""))


def ways(context: Context, been: Trail | None = None) -> list[Way]:
    """Return how far the learner has come in every topic."""
    been = been or trail(context)
    return [_way(context, pack, topic, been.opened, been.passed) for pack, topic in context.library.topics()]


def _left(steps: Iterable[Step], context: Context, opened: Set[str]) -> list[Step]:
    items = context.progress.items
    return [step for step in steps if not (items[step.item.id].attempts if step.item else step.address in opened)]


def _way(context: Context, pack: Pack, topic: Topic, opened: Set[str], passed: Set[str]) -> Way:
    every = steps_of(pack, topic)
    parts = max((step.part for step in every), default=0) + 1
    steps = [step for step in every if step.item is None or step.item.id in context.library.proved]
    left = [] if f"{pack.id}/{topic.id}" in passed else _left(steps, context, opened)
    next_step = left[0] if left else None
    part = next_step.part if next_step else parts - 1
    inside = [step for step in steps if step.part == part]
    minutes = sum(step.minutes for step in left if step.part == part)
    return Way(
        pack, topic, parts=parts, part=part + 1, place=inside.index(next_step) + 1 if next_step else len(inside),
        steps=len(inside), left=max(1, round(minutes)) if next_step else 0, next=next_step,
        waits=bool(context.library.coming) and next_step is None and len(steps) < len(every),
    )  # fmt: skip


def ready(now: Way, ways: Iterable[Way]) -> bool:
    """Return whether every topic that this one needs is done or passed."""
    done = {way.topic.id for way in ways if way.pack is now.pack and way.next is None}
    return done.issuperset(now.topic.needs)


def following(ways: list[Way], here: str = "") -> Way | None:
    """Return the topic to continue with: the one at the address `here` if it has steps left, else the first ready one.

    None if nothing is left.
    """
    left = [way for way in ways if way.next]
    current = [way for way in left if f"{here}/".startswith(f"/topics/{way.pack.id}/{way.topic.id}/")]
    return next(iter([*current, *(way for way in left if ready(way, ways)), *left]), None)


def opened(context: Context, address: str) -> None:
    """Mark the page at this address as read."""
    if not context.store.kept(f"opened:{address}"):
        context.store.keep(f"opened:{address}", f"{context.now():%Y-%m-%d}")
