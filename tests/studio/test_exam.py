"""Test and Challenge: adaptive, restartable, counted once, and honest at the end."""

import re
import uuid
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearhead.course import Attempt
from clearhead.studio import sitting
from studio.conftest import START, Visitor
from studio.sample import ITEMS
from studio.sample import item as sample_item
from studio.test_pages import TOPIC, answer

MANY = [replace(sample_item(f"q{n}", "choice", 1 + n % 5), concepts=(f"c{n % 7}",)) for n in range(23)]
SITTING = str(uuid.UUID(int=13))


def an_answer(id: str, correct: bool) -> Attempt:
    return Attempt(id, id, 1, START, "test", correct)


def sit(right: list[bool], items: list = MANY) -> list:
    """The items a test asks of somebody who answers so."""
    answers: list[Attempt] = []
    asked = []
    while (item := sitting.following(items, answers, SITTING)) is not None:
        asked.append(item)
        answers.append(an_answer(item.id, right[len(answers)]))
    return asked


@settings(deadline=None, max_examples=40)
@given(st.lists(st.booleans(), min_size=10, max_size=10))
def test_a_test_asks_ten_different_items_and_the_same_ones_again(right: list[bool]) -> None:
    asked = sit(right)
    assert len({item.id for item in asked}) == sitting.LENGTH
    assert asked == sit(right)


def test_it_gets_harder_with_right_answers_and_easier_with_wrong_ones() -> None:
    assert [item.difficulty for item in sit([True] * 10)][:4] == [3, 4, 5, 5]
    assert [item.difficulty for item in sit([False] * 10)][:4] == [3, 2, 1, 1]


def test_concepts_not_yet_asked_come_first() -> None:
    level = [replace(item, difficulty=3) for item in MANY]
    asked = sit([True, False] * 5, level)[:7]
    assert len({item.concepts for item in asked}) == 7


def test_cards_free_text_and_programs_are_not_in_a_test() -> None:
    items = [*ITEMS, sample_item("write-it", "code"), sample_item("say-it", "explain")]
    assert {item.kind for item in sit([True] * 10, items)} == {"predict", "choice", "debug"}


def test_a_test_from_start_to_report(visitor: Visitor) -> None:
    start = re.search(rf'href="({TOPIC}/test/[^"]+)"', visitor.get(f"{TOPIC}/test"))
    assert start
    page = visitor.get(start[1])
    for place in range(3):
        assert f"question {place + 1} of 3" in page
        assert "A hint" not in page
        assert visitor.ticket(page) == visitor.ticket(visitor.get(start[1]))  # loading it again changes nothing
        texts = ("4.0", "16.0") if "checkbox" in page else ("16.0",) if place == 0 else ("4.0",)
        page = answer(visitor, page, *texts)
        assert "Rationale" not in page
    right = sum(one.correct for one in visitor.desk.progress.history)
    assert f"<h1>{right} of 3 right</h1>" in page
    assert f"{right} of 3</td>" in page  # the concept they share
    assert {one.mode for one in visitor.desk.progress.history} == {"test"}
    told = visitor.get(re.search(r'href="(/attempts/[^"]+)"', page)[1])  # type: ignore[index]
    assert "Back to the result" in told


def problem_pages(visitor: Visitor, clock: str, texts: tuple[str, ...], seconds: int = 5) -> str:
    """Work through a challenge with these answers; the report."""
    start = re.search(rf'action="({TOPIC}/challenge/[^"]+)"', visitor.get(f"{TOPIC}/challenge"))
    assert start
    page = visitor.get(f"{start[1]}?clock={clock}")
    for _ in range(20):
        if "solved</h1>" in page:
            return page
        visitor.later(seconds=seconds)
        both = "checkbox" in page and texts == ("4.0",)
        page = answer(visitor, page, *(("4.0", "16.0") if both else texts))
    raise AssertionError("the challenge has no end")


def test_all_right_and_in_time_earns_the_badge(visitor: Visitor) -> None:
    page = problem_pages(visitor, "1", ("4.0",))
    assert "<h1>3 of 3 solved</h1>" in page
    assert 'class="badge"' in page
    assert "all five right, 2026-03-04" in visitor.get(TOPIC)


def test_too_slow_is_said_and_earns_no_badge_unless_the_clock_is_off(visitor: Visitor) -> None:
    slow = problem_pages(visitor, "1", ("4.0",), seconds=85)
    assert "right, after the time" in slow
    assert 'class="badge"' not in slow
    assert 'class="badge"' in problem_pages(visitor, "2", ("4.0",), seconds=85)
    off = problem_pages(visitor, "off", ("4.0",), seconds=2000)
    assert "after the time" not in off


def test_tries_are_limited(visitor: Visitor) -> None:
    page = problem_pages(visitor, "off", ("1.0",))
    assert "<h1>0 of 3 solved</h1>" in page
    assert len(visitor.desk.progress.history) == 6  # two tries at each of three


def test_the_clock_is_drawn_only_when_it_is_on(visitor: Visitor) -> None:
    id = uuid.uuid4()
    assert 'data-seconds="90"' in visitor.get(f"{TOPIC}/challenge/{id}?clock=1.5")
    assert 'class="clock"' not in visitor.get(f"{TOPIC}/challenge/{id}?clock=off")


@pytest.mark.parametrize("address", ["/test/x", "/challenge/x", f"/challenge/{SITTING}?clock=9"])
def test_a_sitting_that_makes_no_sense_is_refused(visitor: Visitor, address: str) -> None:
    visitor.get(TOPIC + address, 422)


def test_a_topic_with_too_few_questions_has_neither(visitor: Visitor) -> None:
    visitor.get("/topics/attention/later/test", 404)
    visitor.get("/topics/attention/later/challenge", 404)
