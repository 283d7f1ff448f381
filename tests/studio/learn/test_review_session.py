"""Home offers one session at a time: at the first visit, after a day, after two weeks away, when all is done."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from clearhead.course import Attempt, rebuild
from clearhead.studio.app.application import create
from clearhead.studio.learner.review_session import (
    LONGEST,
    NEW_PER_DAY,
    NEW_PER_SESSION,
    SESSION_LENGTH,
    answers_since,
    plan_session,
    start_of,
)
from clearhead.studio.library.library import Library
from clearhead.studio.web.settings import Settings
from studio import sample
from studio.conftest import START, Visitor
from studio.learn.test_pages import TOPIC

MANY = 53


def library() -> Library:
    """The sample course with many more questions."""
    (pack,) = sample.library().packs
    one = pack.items["scale-of-logits"]
    more = {f"q-{n}": replace(one, id=f"q-{n}", title=f"Question {n}", kind="choice") for n in range(MANY)}
    proved = {id: replace(sample.PROVED[one.id], item_id=id, kind="choice") for id in more}
    return Library((replace(pack, items={**pack.items, **more}),), {**sample.PROVED, **proved})


@pytest.fixture
def visitor(tmp_path: Path) -> Iterator[Visitor]:
    app = create(Settings(data=tmp_path), library())
    app.state.context.now = lambda: START
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield Visitor(client, app.state.context)


def attempt(item: str, minutes: float, *, correct: bool = True, mode: str = "practice", **more: object) -> Attempt:
    at = START + timedelta(minutes=minutes)
    return Attempt(f"{item} {minutes}", item, 1, at, mode, correct, "a", **more)  # type: ignore[arg-type]


def said(home: str) -> str:
    """What Home says of today."""
    part = home[home.index('<h2 id="due"') : home.index('<section aria-labelledby="weak"')]
    return " ".join(re.sub(r"<[^>]+>", " ", part).split())


def sit(visitor: Visitor, page: str) -> tuple[int, str]:
    """Answer until the session ends; gives how many were answered and the last page."""
    count = 0
    while 'name="ticket"' in page:
        form = (
            {"response": "good"} if "card-face" in page else {"typed": "4.0"} if "typed" in page else {"response": "a"}
        )
        told = visitor.post("/answer", ticket=visitor.ticket(page), **form)
        count += 1
        visitor.later(seconds=7)
        onward = re.search(r'href="(/review[^"]+)"', told)
        page = visitor.get(onward[1].replace("&amp;", "&")) if onward else told
        assert count < 40, "a session ends"
    return count, page


def test_after_a_first_page_a_few_new_questions_are_offered(visitor: Visitor) -> None:
    visitor.get(f"{TOPIC}/read")
    assert said(visitor.get("/")).startswith(f"Today {NEW_PER_SESSION} questions, about 3 minutes Begin")
    assert "All new." in said(visitor.get("/"))


@pytest.mark.slow
def test_a_session_ends_and_says_what_waits_without_a_number_to_fear(visitor: Visitor) -> None:
    for n in range(MANY):
        visitor.context.store.record(attempt(f"q-{n}", 0, correct=False))
    visitor.later(days=15)
    home = said(visitor.get("/"))
    assert f"{SESSION_LENGTH} questions" in home
    assert "All to see again." in home
    assert home.endswith("The rest can wait for another session."), "no number that only weighs"
    assert str(MANY - SESSION_LENGTH) not in home
    page = visitor.get("/review")
    assert f"1 of {SESSION_LENGTH}" in page
    count, end = sit(visitor, page)
    assert count == SESSION_LENGTH
    assert f"{SESSION_LENGTH} answered" in end
    assert "A good place to stop" in end
    assert f"Another {SESSION_LENGTH}" in end
    assert f"1 of {SESSION_LENGTH}" in visitor.get("/review"), "another session begins"


def take_back(visitor: Visitor, page: str) -> str:
    """Press the button that takes the last answer back."""
    form = page[page.index('action="/undo"') :]
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form[: form.index("</form>")]))
    return visitor.post("/undo", **fields)


@pytest.mark.slow
@pytest.mark.parametrize("card", [False, True], ids=["question", "card"])
def test_a_session_goes_on_from_an_answer_taken_back(visitor: Visitor, card: bool) -> None:
    for n in range(SESSION_LENGTH):
        visitor.context.store.record(attempt("what-is-lse" if card and not n else f"q-{n}", n, correct=False))
    visitor.later(days=1)
    page = visitor.get("/review")
    for n in range(3):
        assert f"{n + 1} of {SESSION_LENGTH}" in page
        form = {"response": "good"} if "card-face" in page else {"response": "b"}
        told = visitor.post("/answer", ticket=visitor.ticket(page), **form)
        if card:  # the first: the next question offers to take its grade back
            assert f"1 of {SESSION_LENGTH}" in take_back(visitor, told)
            return
        visitor.later(seconds=7)
        onward = re.search(r'href="(/review[^"]+)"', told)
        assert onward
        page = visitor.get(onward[1].replace("&amp;", "&"))
    again = take_back(visitor, told)
    assert f"3 of {SESSION_LENGTH}" in again
    told = visitor.post("/answer", ticket=visitor.ticket(again), response="a")
    onward = re.search(r'href="(/review[^"]+)"', told)
    assert onward
    assert f"4 of {SESSION_LENGTH}" in visitor.get(onward[1].replace("&amp;", "&"))


def test_a_question_taken_back_keeps_the_focus(visitor: Visitor) -> None:
    page = visitor.get("/review?focus=scaling")
    again = take_back(visitor, visitor.post("/answer", ticket=visitor.ticket(page), response="b"))
    told = visitor.post("/answer", ticket=visitor.ticket(again), response="b")
    assert re.search(r'href="/review\?after=[^"]+focus=scaling"', told)


@pytest.mark.slow
def test_new_questions_are_few_a_day(visitor: Visitor) -> None:
    visitor.get(f"{TOPIC}/read")
    met = 0
    for _ in range(4):
        met += sit(visitor, visitor.get("/review"))[0]
        visitor.later(minutes=1)
    new = {one.item_id for one in visitor.context.progress.history}
    assert len(new) == NEW_PER_DAY
    home = said(visitor.get("/"))
    assert "new." not in home
    visitor.later(days=1)
    assert f"{NEW_PER_SESSION} new." in said(visitor.get("/"))


@pytest.mark.slow
def test_when_all_is_done_home_says_so_and_when_the_next_comes(visitor: Visitor) -> None:
    for n, id in enumerate(visitor.context.library.items):
        visitor.context.store.record(attempt(id, n / 100))
        visitor.context.store.record(attempt(id, 30 + n / 100))
    visitor.later(hours=2)
    assert re.fullmatch(r"Today Nothing is due The next question comes [^.]+\.", said(visitor.get("/")))
    assert "Nothing is due here" in visitor.get("/review")


def test_a_spot_is_weak_after_wrong_answers_not_after_few(visitor: Visitor) -> None:
    def weak() -> str:
        home = visitor.get("/")
        return home[home.index('id="weak"') : home.index("<h2>Topics")]

    visitor.context.store.record(attempt("q-1", 0, correct=False))
    assert "None known yet" in weak(), "one answer says little"
    for n in (2, 3, 4, 5):
        visitor.context.store.record(attempt(f"q-{n}", n))
    assert "None now" in weak()
    visitor.context.store.record(attempt("q-6", 6, correct=False))
    assert "Scaling" in weak()


def test_what_is_new_beyond_the_day_waits_in_its_topic(visitor: Visitor) -> None:
    for n in range(NEW_PER_DAY):
        for minutes in (n, 30 + n):
            visitor.context.store.record(attempt(f"q-{n}", minutes))
    visitor.later(hours=2)
    assert said(visitor.get("/")).endswith("New ones wait in their topics.")


def test_new_questions_are_of_the_topic_one_is_in_and_not_of_one_passed(visitor: Visitor) -> None:
    visitor.context.store.keep("passed:attention/one-head", "2026-03-04")
    visitor.get(f"{TOPIC}/read")
    assert "Nothing is due" in said(visitor.get("/"))


RIGHT = st.lists(st.tuples(st.integers(0, MANY - 1), st.booleans(), st.sampled_from([None, 0.9])), max_size=60)


@pytest.mark.slow
@settings(max_examples=40)
@given(RIGHT, st.floats(0, 90), st.integers(0, SESSION_LENGTH))
def test_a_helping_is_never_too_much_and_leaves_nothing_due_out_for_something_new(
    done: list[tuple[int, bool, float | None]], days: float, room: int
) -> None:
    items = [item for id, item in library().items.items() if id.startswith("q-")]
    attempts = [attempt(f"q-{n}", place, correct=right, confidence=sure) for place, (n, right, sure) in enumerate(done)]
    progress, now = rebuild(items, attempts), START + timedelta(days=days, hours=1)
    by_item = {item.id: [one for one in attempts if one.item_id == item.id] for item in items}
    found = plan_session(items, items, progress, by_item, now, room)
    assert len(found.items) <= room
    assert len({item.id for item in found.items}) == len(found.items)
    assert len(found.again) + found.waiting == len(progress.due(now))
    assert len(found.new) <= NEW_PER_SESSION
    assert not (found.waiting and found.new)
    errors = [item.id for item in found.again if item.id in progress.calibration.confident_errors]
    assert [item.id for item in found.again][: len(errors)] == errors


def test_a_session_counts_its_own_answers_alone() -> None:
    history = [attempt("a", 0, mode="review"), attempt("b", 5), attempt("c", 6, mode="review")]
    since = int((START + timedelta(minutes=1)).timestamp())
    assert [one.item_id for one in answers_since(history, since)] == ["c"]
    assert [one.item_id for one in answers_since(history, 10**30)] == []
    now = START + timedelta(minutes=9)
    assert start_of(since, now) == since
    for other in (0, -5, 10**30, since - LONGEST):
        assert start_of(other, now) == int(now.timestamp())
