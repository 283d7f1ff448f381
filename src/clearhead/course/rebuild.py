"""Everything derived from attempts: schedule, mastery, difficulty, calibration. A pure function of its arguments.

Attempts are append-only; state is never stored, so an undo, an edited item or a new algorithm costs one call. The
order of the arguments does not matter: attempts are sorted by time and id, and one sent twice counts once.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo

from fsrs import Card, Rating, Scheduler, State

from clearhead.course import elo
from clearhead.course.attempt import Attempt, Calibration, ItemProgress, Mastery, Progress
from clearhead.course.item import Item

_SCHEDULER = Scheduler(enable_fuzzing=False)  # the same attempts always give the same days
_STATES = {State.Learning: "learning", State.Review: "review", State.Relearning: "relearning"}
WEIGHT = 0.3  # of the newest result in a concept's moving average
GOOD = 0.7  # average from which a concept is good
DELAY = timedelta(hours=20)  # a success counts as delayed after this long without a look: the next day, not the same
SURE = 0.8  # confidence from which a wrong answer is a confident error


def rebuild(items: Iterable[Item], attempts: Iterable[Attempt]) -> Progress:
    """Derive a learner's progress.

    Args:
        items: of the course, in order; attempts at items that are gone stay in the history and count for nothing else.
        attempts: in any order, repeats allowed.
    """
    course = {item.id: item for item in items}
    history = counted(attempts)
    by_item: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in history:
        by_item[attempt.item_id].append(attempt)
    ability, ratings = _ratings(course, history)
    progress = {one: _schedule(item, by_item[one], ratings[one]) for one, item in course.items()}
    return Progress(progress, _mastery(course, history), ability, calibrate(history), history)


def counted(attempts: Iterable[Attempt]) -> tuple[Attempt, ...]:
    """The attempts that count, oldest first: without repeats, without undone ones, without the undos."""
    unique = {attempt.id: attempt for attempt in sorted(attempts, key=lambda one: (one.at, one.id), reverse=True)}
    undone = {attempt.undoes for attempt in unique.values() if attempt.undoes}
    kept = (one for one in unique.values() if one.undoes is None and one.id not in undone)
    return tuple(sorted(kept, key=lambda one: (one.at, one.id)))


def _schedule(item: Item, attempts: list[Attempt], rating: float) -> ItemProgress:
    if not attempts:
        return ItemProgress(item.id, "new", elo=rating)
    card, lapses = Card(card_id=1), 0
    for attempt in attempts:
        lapses += card.state == State.Review and not attempt.correct
        card, _ = _SCHEDULER.review_card(
            card, Rating.Good if attempt.correct else Rating.Again, attempt.at.astimezone(UTC)
        )
    last = attempts[-1]
    changed = last.item_rev < item.meaning_rev
    return ItemProgress(
        item.id, "changed" if changed else _STATES[card.state], last.at if changed else card.due, card.stability,
        card.difficulty, len(attempts), lapses, last.at, last.correct, rating,
    )  # fmt: skip


def _ratings(course: Mapping[str, Item], history: Iterable[Attempt]) -> tuple[float, dict[str, float]]:
    """Elo, from the first attempt at each item on each day: a retry a minute later says little of difficulty."""
    ability, ratings = elo.START, {one: elo.prior(item.difficulty) for one, item in course.items()}
    seen: dict[str, int] = defaultdict(int)
    last: dict[str, datetime] = {}
    for attempt in history:
        one = attempt.item_id
        fresh = one not in last or attempt.at - last[one] >= DELAY
        last[one] = attempt.at
        if one in ratings and fresh:
            ability, ratings[one] = elo.update(ability, ratings[one], attempt.correct, seen[one])
            seen[one] += 1
    return ability, ratings


def _mastery(course: Mapping[str, Item], history: Iterable[Attempt]) -> dict[str, Mastery]:
    """Per concept a moving average of results, and whether one success came after a day's gap."""
    holders: dict[str, list[str]] = defaultdict(list)
    for item in course.values():
        for concept in item.concepts:
            holders[concept].append(item.id)
    value: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    last: dict[str, datetime] = {}
    delayed: set[str] = set()
    for attempt in history:
        for concept in course[attempt.item_id].concepts if attempt.item_id in course else ():
            if attempt.correct and concept in last and attempt.at - last[concept] >= DELAY:
                delayed.add(concept)
            value[concept] += WEIGHT * ((1.0 if attempt.correct else 0.0) - value[concept])
            count[concept] += 1
            last[concept] = attempt.at
    return {
        one: Mastery(
            one, value[one], _level(value[one], count[one], one in delayed), count[one], tuple(ids), last.get(one)
        )
        for one, ids in holders.items()
    }


def _level(value: float, count: int, delayed: bool) -> str:
    if count == 0:
        return "new"
    if value < GOOD:
        return "learning"
    return "strong" if delayed else "good"


def calibrate(history: Iterable[Attempt]) -> Calibration:
    """Compare stated confidence with results, in five bands."""
    stated = [one for one in history if one.confidence is not None]
    bands: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    errors: dict[str, float] = {}
    for one in stated:
        confidence = one.confidence or 0.0
        bands[min(int(confidence * 5), 4)].append((confidence, one.correct))
        if one.correct:
            errors.pop(one.item_id, None)
        elif confidence >= SURE:
            errors[one.item_id] = confidence
    bins = tuple(
        (sum(c for c, _ in band) / len(band), sum(ok for _, ok in band) / len(band), len(band))
        for _, band in sorted(bands.items())
    )
    brier = sum(((one.confidence or 0.0) - one.correct) ** 2 for one in stated) / len(stated) if stated else None
    worst = sorted(errors, key=lambda item: (-errors[item], item))
    return Calibration(len(stated), brier, bins, tuple(worst))


def study_day(at: datetime, zone: tzinfo, starts: int = 4) -> datetime:
    """The start (UTC) of the learner's day that holds `at`: days begin at `starts` o'clock in the learner's zone.

    >>> from zoneinfo import ZoneInfo
    >>> study_day(datetime(2026, 7, 1, 1, tzinfo=UTC), ZoneInfo("Europe/Berlin")).isoformat()
    '2026-06-30T02:00:00+00:00'
    """
    local = at.astimezone(zone)
    day = local.date() if local.hour >= starts else local.date() - timedelta(days=1)
    return datetime(day.year, day.month, day.day, starts, tzinfo=zone).astimezone(UTC)
