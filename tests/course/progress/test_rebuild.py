"""Progress is a pure function of items and attempts: any order, any repeat, any crash point, undo, edits."""

import random
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from clearhead.course import Attempt, Item, Ledger, rebuild, study_day
from clearhead.course.progress.elo import expected

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
DAY = timedelta(days=1)


def item(name: str, *concepts: str, rev: int = 1, meaning_rev: int = 1) -> Item:
    return Item(
        name, "card", "t", rev, "?", ".", f"items/{name}.md", "", concepts=concepts or ("c",), meaning_rev=meaning_rev
    )


def attempt(number: int, name: str, correct: bool, at: datetime = START, **more: object) -> Attempt:
    return Attempt(f"id-{number:04d}", name, 1, at, "practice", correct, **more)  # type: ignore[arg-type]


ITEMS = [item("a", "x", "y"), item("b", "y"), item("c", "z")]
attempts = st.lists(
    st.tuples(st.sampled_from("abcd"), st.booleans(), st.integers(0, 60 * 24 * 40), st.none() | st.floats(0, 1)),
    max_size=14,
).map(
    lambda rows: [
        attempt(number, name, ok, START + timedelta(minutes=minutes), confidence=sure)
        for number, (name, ok, minutes, sure) in enumerate(rows)
    ]
)


@pytest.mark.slow
@settings(max_examples=80)
@given(attempts, st.randoms(use_true_random=False))
def test_the_order_of_writes_does_not_matter(history: list[Attempt], chance: random.Random) -> None:
    shuffled = list(history)
    chance.shuffle(shuffled)
    assert rebuild(ITEMS, shuffled) == rebuild(ITEMS, history)


@settings(max_examples=80)
@given(attempts, st.integers(0, 14))
def test_a_crash_and_a_second_sending_lose_and_double_nothing(history: list[Attempt], cut: int) -> None:
    """A writer that dies after `cut` attempts and sends everything again gives the same progress."""
    assert rebuild(ITEMS, [*history[:cut], *history]) == rebuild(ITEMS, history)


@settings(max_examples=60)
@given(attempts, st.data())
def test_an_undo_is_as_if_it_had_not_been(history: list[Attempt], data: st.DataObject) -> None:
    assume(history)
    gone = data.draw(st.sampled_from(history))
    undo = Attempt("undo", gone.item_id, 1, START + 50 * DAY, "practice", False, undoes=gone.id)
    rest = [one for one in history if one.id != gone.id]
    assert rebuild(ITEMS, [*history, undo]) == rebuild(ITEMS, rest)


@pytest.mark.slow
@settings(max_examples=80)
@given(attempts, st.data())
def test_a_ledger_comes_to_what_a_rebuild_comes_to(history: list[Attempt], data: st.DataObject) -> None:
    """However the attempts come in: in parts, in any order, twice, with undos before or after what they undo."""
    written = list(history)
    for number, gone in enumerate(data.draw(st.lists(st.sampled_from(history), max_size=2)) if history else ()):
        at = START + timedelta(minutes=data.draw(st.integers(0, 60 * 24 * 50)))
        written.append(Attempt(f"undo-{number}", gone.item_id, 1, at, "practice", False, undoes=gone.id))
    if data.draw(st.booleans()):
        written = data.draw(st.permutations(written))
    ledger, added, rest = Ledger(ITEMS), [], list(written)
    while rest:
        part, rest = rest[: (cut := data.draw(st.integers(1, 6)))], rest[cut:]
        added += part
        assert ledger.add(part + added[:1]) == rebuild(ITEMS, added)


def test_a_new_answer_costs_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in items scheduled, not in seconds: one, of the three, and of one attempt."""
    module = sys.modules["clearhead.course.progress.rebuild"]
    scheduled: list[str] = []
    plain = module.schedule
    monkeypatch.setattr(module, "schedule", lambda item, *rest: scheduled.append(item.id) or plain(item, *rest))
    ledger = Ledger(ITEMS)
    ledger.add([attempt(n, "abc"[n % 3], True, START + n * DAY) for n in range(30)])
    scheduled.clear()
    ledger.add([attempt(99, "b", False, START + 40 * DAY)])
    assert scheduled == ["b"]


@settings(max_examples=60)
@given(attempts)
def test_every_prefix_is_a_valid_progress(history: list[Attempt]) -> None:
    for cut in range(len(history) + 1):
        progress = rebuild(ITEMS, history[:cut])
        assert list(progress.items) == ["a", "b", "c"]
        assert len(progress.history) == cut
        assert all(0 <= one.value <= 1 for one in progress.concepts.values())
        assert set(progress.new()).isdisjoint(progress.due(START + 400 * DAY))


@settings(max_examples=40)
@given(attempts)
def test_elo_is_conserved(history: list[Attempt]) -> None:
    """What the learner wins the items lose."""
    progress, fresh = rebuild(ITEMS, history), rebuild(ITEMS, [])
    before = fresh.ability + sum(one.elo for one in fresh.items.values())
    after = progress.ability + sum(one.elo for one in progress.items.values())
    assert after == pytest.approx(before)


def test_success_spaces_reviews_out_and_failure_brings_them_back() -> None:
    now, gaps, history = START, [], []
    for number in range(6):
        history.append(attempt(number, "a", True, now))
        one = rebuild(ITEMS, history).items["a"]
        assert one.due is not None
        gaps.append(one.due - now)
        now = one.due
    assert gaps == sorted(gaps)
    assert gaps[-1] > 20 * DAY
    failed = rebuild(ITEMS, [*history, attempt(9, "a", False, now)]).items["a"]
    assert failed.due is not None
    assert failed.due - now < timedelta(hours=1)
    assert (failed.state, failed.lapses, failed.last_correct) == ("relearning", 1, False)


def test_due_is_the_most_overdue_first_and_new_items_are_not_due() -> None:
    history = [attempt(1, "b", False), attempt(2, "a", False, START + timedelta(minutes=5))]
    progress = rebuild(ITEMS, history)
    assert progress.due(START) == []
    assert progress.due(START + DAY) == ["b", "a"]
    assert progress.new() == ["c"]


def test_an_edit_in_meaning_queues_the_item_again_and_a_cosmetic_one_does_not() -> None:
    history = [attempt(n, "a", True, START + n * 30 * DAY) for n in range(3)]
    last = history[-1].at
    kept = rebuild([item("a", rev=2, meaning_rev=1)], history)
    assert kept.items["a"].due is not None
    assert kept.items["a"].due > last + 10 * DAY
    changed = rebuild([item("a", rev=3, meaning_rev=2)], history)
    assert changed.items["a"].state == "changed"
    assert changed.due(last) == ["a"]
    assert changed.items["a"].attempts == 3  # the history stays
    answered = rebuild(
        [item("a", rev=3, meaning_rev=2)], [*history, replace(attempt(7, "a", True, last + DAY), item_rev=3)]
    )
    assert answered.items["a"].state != "changed"


def test_mastery_needs_a_delayed_success() -> None:
    same_day = [attempt(n, "c", True, START + timedelta(minutes=n)) for n in range(6)]
    assert rebuild(ITEMS, same_day).concepts["z"].level == "good"
    next_day = [*same_day, attempt(9, "c", True, START + DAY)]
    assert rebuild(ITEMS, next_day).concepts["z"].level == "strong"
    assert rebuild(ITEMS, [*next_day, attempt(10, "c", False, START + 2 * DAY)]).concepts["z"].level == "learning"
    assert rebuild(ITEMS, []).concepts["z"].level == "new"
    assert [one.concept for one in rebuild(ITEMS, [attempt(1, "a", False), attempt(2, "c", True)]).weakest(1)] == ["x"]


def test_calibration() -> None:
    history = [
        attempt(1, "a", True, START, confidence=0.9),
        attempt(2, "b", False, START, confidence=0.9),
        attempt(3, "c", False, START, confidence=0.3),
        attempt(4, "c", True, START),
    ]
    found = rebuild(ITEMS, history).calibration
    assert found.count == 3
    assert found.brier == pytest.approx((0.01 + 0.81 + 0.09) / 3)
    assert [(round(stated, 2), share, count) for stated, share, count in found.bins] == [(0.3, 0.0, 1), (0.9, 0.5, 2)]
    assert found.confident_errors == ("b",)
    put_right = rebuild(ITEMS, [*history, attempt(5, "b", True, START + DAY, confidence=0.5)])
    assert put_right.calibration.confident_errors == ()


def test_elo_by_hand() -> None:
    """One win of 1500 against an item that starts at 1500 - 100: 32 · (1 - 1/(1 + 10^(-0.25))) points."""
    moved = 32 * (1 - expected(1500, 1400))
    progress = rebuild([item("a")], [attempt(1, "a", True)])
    assert progress.ability == pytest.approx(1500 + moved)
    assert progress.items["a"].elo == pytest.approx(1400 - moved)


@pytest.mark.parametrize(
    ("at", "zone", "day"),
    [
        ("2026-07-01T03:59:00+02:00", "Europe/Berlin", "2026-06-30T04:00:00+02:00"),
        ("2026-07-01T04:00:00+02:00", "Europe/Berlin", "2026-07-01T04:00:00+02:00"),
        ("2026-03-29T03:30:00+02:00", "Europe/Berlin", "2026-03-28T04:00:00+01:00"),  # clocks went forward at two
        ("2026-06-30T23:00:00+00:00", "Pacific/Auckland", "2026-07-01T04:00:00+12:00"),
    ],
)
def test_a_day_begins_at_four_where_the_learner_is(at: str, zone: str, day: str) -> None:
    assert study_day(datetime.fromisoformat(at), ZoneInfo(zone)) == datetime.fromisoformat(day)
