"""Test and Challenge: adaptive, restartable, counted once, and honest at the end."""

import re
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearhead.course import Attempt, Challenge, Mastery
from clearhead.studio.practice import assessments
from clearhead.studio.questions import assessment
from studio.conftest import START, Visitor, visitor_of
from studio.learn.test_pages import TOPIC, answer
from studio.sample import ITEMS
from studio.sample import item as sample_item

MANY = [replace(sample_item(f"q{n}", "choice", 1 + n % 5), concepts=(f"c{n % 7}",)) for n in range(23)]
SITTING = str(uuid.UUID(int=13))


def an_answer(id: str, correct: bool) -> Attempt:
    return Attempt(id, id, 1, START, "test", correct)


def sit(right: list[bool], items: list = MANY) -> list:
    """The items a test asks of somebody who answers so."""
    answers: list[Attempt] = []
    asked = []
    while (item := assessment.next_item(items, answers, SITTING)) is not None:
        asked.append(item)
        answers.append(an_answer(item.id, right[len(answers)]))
    return asked


@settings(max_examples=40)
@given(st.lists(st.booleans(), min_size=10, max_size=10))
def test_a_test_asks_ten_different_items_and_the_same_ones_again(right: list[bool]) -> None:
    asked = sit(right)
    assert len({item.id for item in asked}) == assessment.LENGTH
    assert asked == sit(right)


def test_it_gets_harder_with_right_answers_and_easier_with_wrong_ones() -> None:
    assert [item.difficulty for item in sit([True] * 10)][:4] == [3, 4, 5, 5]
    assert [item.difficulty for item in sit([False] * 10)][:4] == [3, 2, 1, 1]


def test_it_begins_in_the_middle_of_what_the_topic_has() -> None:
    easy = [replace(item, difficulty=min(item.difficulty, 2)) for item in MANY]
    assert sit([True] * 10, easy)[0].difficulty == 2


def test_concepts_not_yet_asked_come_first() -> None:
    level = [replace(item, difficulty=3) for item in MANY]
    asked = sit([True, False] * 5, level)[:7]
    assert len({item.concepts for item in asked}) == 7


def test_cards_free_text_and_programs_are_not_in_a_test() -> None:
    items = [*ITEMS, sample_item("write-it", "code"), sample_item("say-it", "explain")]
    assert {item.kind for item in sit([True] * 10, items)} == {"predict", "choice", "debug"}


@pytest.mark.slow
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
    right = sum(one.correct for one in visitor.context.progress.history)
    assert f"<h1>{right} of 3 right</h1>" in page
    assert f"{right} of 3</span>" in page  # the concept they share
    assert {one.mode for one in visitor.context.progress.history} == {"test"}
    told = visitor.get(re.search(r'href="(/attempts/[^"]+)"', page)[1])  # type: ignore[index]
    assert "Back to the result" in told


NOTES = (
    "Not right. Look again",
    "That was not right; the end",
    "That was right.",
    "That was right, but after the time.",
)


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
        before, page = page, answer(visitor, page, *(("4.0", "16.0") if both else texts))
        assert "solved</h1>" in page or any(note in page for note in NOTES), before
    raise AssertionError("the challenge has no end")


@pytest.mark.slow
def test_all_right_and_in_time_earns_the_badge(visitor: Visitor) -> None:
    page = problem_pages(visitor, "1", ("4.0",))
    assert "<h1>3 of 3 solved</h1>" in page
    assert 'class="badge"' in page
    assert "all right, 2026-03-04" in visitor.get(TOPIC)


@pytest.mark.slow
def test_too_slow_is_reported_and_earns_no_badge_unless_the_clock_is_off(visitor: Visitor) -> None:
    slow = problem_pages(visitor, "1", ("4.0",), seconds=135)
    assert "right, after the time" in slow
    assert 'class="badge"' not in slow
    assert 'class="badge"' in problem_pages(visitor, "2", ("4.0",), seconds=135)
    off = problem_pages(visitor, "off", ("4.0",), seconds=2000)
    assert "after the time" not in off


@pytest.mark.slow
def test_tries_are_limited(visitor: Visitor) -> None:
    page = problem_pages(visitor, "off", ("1.0",))
    assert "<h1>0 of 3 solved</h1>" in page
    assert len(visitor.context.progress.history) == 6  # two tries at each of three


def test_the_clock_is_drawn_only_when_it_is_on(visitor: Visitor) -> None:
    id = uuid.uuid4()
    assert 'data-seconds="180"' in visitor.get(f"{TOPIC}/challenge/{id}?clock=1.5")
    assert 'class="clock"' not in visitor.get(f"{TOPIC}/challenge/{id}?clock=off")


@pytest.mark.parametrize("address", ["/test/x", "/challenge/x", f"/challenge/{SITTING}?clock=9"])
def test_a_session_that_makes_no_sense_is_refused(visitor: Visitor, address: str) -> None:
    visitor.get(TOPIC + address, 422)


def test_a_topic_with_too_few_questions_has_neither(visitor: Visitor) -> None:
    visitor.get("/topics/attention/later/test", 404)
    visitor.get("/topics/attention/later/challenge", 404)


FIVE = Challenge(
    "at-speed",
    "One head at speed",
    "All of it, quickly.",
    {
        "predict": "scale-of-logits",
        "choose": "which-hold",
        "tune": "scale-of-logits",
        "debug": "mend-the-mask",
        "concept": "which-hold",
    },
)


def with_challenge(visitor: Visitor, challenge: Challenge = FIVE) -> None:
    library = visitor.context.library
    topics = tuple(
        replace(one, challenges=(challenge,)) if one.id == "one-head" else one for one in library.packs[0].topics
    )
    visitor.context.set_library(replace(library, packs=(replace(library.packs[0], topics=topics),)))


@pytest.mark.slow
def test_the_authors_five_come_in_his_order_with_a_badge_of_their_own(visitor: Visitor) -> None:
    with_challenge(visitor)
    page = visitor.get(f"{TOPIC}/challenge")
    assert "One head at speed" in page
    assert "Five drawn at random" in page
    page = visitor.get(f"{TOPIC}/challenge/{uuid.uuid4()}?of=at-speed")
    names = []
    while "solved</h1>" not in page:
        names.append(re.search(r"\d of 5: ([a-z ]+) ·", page)[1])  # type: ignore[index]
        visitor.later(seconds=5)
        page = answer(visitor, page, *(("4.0", "16.0") if "checkbox" in page else ("4.0",)))
    assert names == ["predict the output", "choose the model", "tune", "debug", "concept"]
    assert "<h1>5 of 5 solved</h1>" in page
    again = visitor.get(f"{TOPIC}/challenge")
    assert again.count('class="badge"') == 1
    assert again.index("One head at speed") < again.index('class="badge"') < again.index("Five drawn")
    assert "all right" in visitor.get(TOPIC)


def test_a_challenge_with_a_question_that_is_not_proved_is_not_offered(visitor: Visitor) -> None:
    with_challenge(visitor, replace(FIVE, problems={**FIVE.problems, "tune": "not-here"}))
    assert "One head at speed" not in visitor.get(f"{TOPIC}/challenge")
    assert "There is no challenge" in visitor.get(f"{TOPIC}/challenge/{uuid.uuid4()}?of=at-speed", 404)


def test_a_challenge_gives_one_hint_and_its_clock_stays_with_it(visitor: Visitor) -> None:
    with_challenge(visitor)
    page = visitor.get(f"{TOPIC}/challenge/{uuid.uuid4()}?of=at-speed")
    assert "A hint (1 left)" in page
    page = visitor.post("/help", ticket=visitor.ticket(page), hint="true")
    assert "Count first." in page
    assert 'name="hint"' not in page
    assert 'data-seconds="120"' in page
    assert "1 of 5: predict the output" in page


@pytest.mark.slow
def test_no_restart_sets_a_clock_back(tmp_path: Path) -> None:
    here = f"{TOPIC}/challenge/{uuid.uuid4()}"
    client, first = visitor_of(tmp_path)
    with client:
        assert 'data-gone="0"' in first.get(here)
    client, second = visitor_of(tmp_path)
    with client:
        second.later(seconds=37)
        assert 'data-gone="37"' in second.get(here)


def test_nine_of_ten_right_pass_a_test_and_eight_do_not() -> None:
    def answers(wrong: int, count: int = assessment.LENGTH) -> list[Attempt]:
        return [an_answer(str(n), n >= wrong) for n in range(count)]

    assert assessment.passed(answers(1))
    assert not assessment.passed(answers(2))
    assert not assessment.passed(answers(0, assessment.LENGTH - 1))


@pytest.mark.slow
def test_who_passed_the_test_is_asked_nothing_new_but_what_is_due(visitor: Visitor) -> None:
    answer(visitor, visitor.get("/items/scale-of-logits"), "16.0")
    visitor.context.store.keep("passed:attention/one-head", "2026-03-04")
    assert "Passed by test, 2026-03-04" in visitor.get(TOPIC)
    visitor.later(days=2)
    page = visitor.get(f"{TOPIC}/practice")
    assert "Scale of logits" in page
    assert "Scale of logits" in visitor.get(f"{TOPIC}/practice?after=scale-of-logits")  # there is nothing else to ask
    assert "Scale of logits" not in visitor.get(f"{TOPIC}/practice?after=scale-of-logits&more=true")


@pytest.mark.parametrize(
    ("right", "asked", "level", "said"),
    [(2, 2, "strong", "strong"), (2, 2, "good", "good"), (1, 2, "strong", "shaky"), (0, 2, "good", "weak")],
)
def test_a_verdict_on_a_concept(right: int, asked: int, level: str, said: str) -> None:
    assert assessments.ConceptVerdict(Mastery("c", 0.9, level, 5), right, asked).verdict == said
