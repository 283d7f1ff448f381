"""How a question is put: hints one at a time, typed when it comes again, worked steps that fade, a level or a concept."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead.course import Attempt, Mastery
from clearhead.studio.questions import levels, worked_steps
from studio.conftest import START, Visitor
from studio.learn.test_pages import TOPIC, answer
from studio.sample import ITEMS

QUESTION = "/items/scale-of-logits"


def attempt(correct: bool, hints: int = 0) -> Attempt:
    return Attempt("a", "i", 1, START, "practice", correct, hints=hints)


@pytest.mark.slow
def test_a_hint_is_not_in_the_page_before_it_is_asked_for_and_counts(visitor: Visitor) -> None:
    page = visitor.get(QUESTION)
    assert "A hint (2 left)" in page
    assert "Count first." not in page
    page = visitor.post("/help", ticket=visitor.ticket(page), hint="true")
    assert "Count first." in page
    assert "Then divide." not in page
    assert "Another hint (1 left)" in page
    page = visitor.post("/help", ticket=visitor.ticket(page), hint="true")
    assert "Then divide." in page
    assert 'name="hint"' not in page
    answer(visitor, visitor.post("/help", ticket=visitor.ticket(page), hint="true"), "4.0")
    assert visitor.context.progress.history[0].hints == 2


def test_what_was_filled_in_is_still_there_after_a_hint(visitor: Visitor) -> None:
    page = visitor.get(QUESTION)
    ticket = visitor.ticket(page)
    assert re.search(r'data-letter="c"[^>]* checked', visitor.post("/help", ticket=ticket, hint="true", response="c"))
    assert "checked" not in page


def again(visitor: Visitor, address: str) -> str:
    """The question after one right answer and a long gap."""
    answer(visitor, visitor.get(QUESTION), "4.0")
    visitor.later(days=60)
    return visitor.get(address)


@pytest.mark.slow
def test_in_a_review_the_output_is_typed(visitor: Visitor) -> None:
    page = again(visitor, "/review")
    assert 'name="typed"' in page
    assert "16.0" not in page
    told = visitor.post("/answer", ticket=visitor.ticket(page), typed=" 16 ")
    assert "Not right" in told
    assert "nothing divides the logits" in told  # what is typed is explained like the option it equals
    assert "You typed" in told
    page = visitor.get(f"{QUESTION}?mode=review")
    visitor.later(seconds=3)
    assert ">Right<" in visitor.post("/answer", ticket=visitor.ticket(page), typed="tensor(4.)")


def test_typing_an_options_letter_is_a_wrong_answer(visitor: Visitor) -> None:
    page = again(visitor, "/review")
    told = visitor.post("/answer", ticket=visitor.ticket(page), typed="a")  # the key of the right option
    assert "Not right" in told
    assert "That is not what the program gives." in told
    assert not visitor.context.progress.history[-1].correct


def test_options_can_be_asked_for_in_place_of_typing(visitor: Visitor) -> None:
    page = visitor.post("/help", ticket=visitor.ticket(again(visitor, "/review")), options="true")
    assert "16.0" in page
    assert "Right:" in answer(visitor, page, "4.0")


def test_a_first_answer_is_chosen_not_typed(visitor: Visitor) -> None:
    assert 'name="typed"' not in visitor.get(QUESTION)
    answer(visitor, visitor.get(QUESTION), "16.0")
    assert 'name="typed"' not in visitor.get(QUESTION)


@pytest.mark.slow
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2))))
def test_steps_fade_by_one_at_a_time_and_never_all_come_back(results: list[tuple[bool, int]]) -> None:
    asked = [worked_steps.steps_to_ask([attempt(*one) for one in results[:count]]) for count in range(len(results) + 1)]
    assert asked[0] == 1
    assert min(asked) >= 1
    for before, now, (correct, hints) in zip(asked, asked[1:], results, strict=False):
        assert now - before == (1 if not hints else 0) if correct else now == max(1, before - 1)


def test_who_knows_the_concepts_begins_further_on() -> None:
    good, learning = (Mastery("c", 0.9, level, 3) for level in ("good", "learning"))
    assert worked_steps.steps_to_ask([], [good]) == 2
    assert worked_steps.steps_to_ask([], [good, learning]) == worked_steps.steps_to_ask([]) == 1


def test_levels_part_the_items_and_a_concept_picks_its_own() -> None:
    many = [replace(item, difficulty=1 + n % 5) for n, item in enumerate(ITEMS * 3)]
    parts = [levels.items_at(level, many) for level in levels.LEVELS]
    assert sorted(id(item) for part in parts for item in part) == sorted(map(id, many))
    assert {c for item in levels.items_at("softmax", many) for c in item.concepts} == {"softmax"}
    assert levels.items_at("no such thing", many) == many


def test_practice_keeps_to_a_level(visitor: Visitor) -> None:
    page = visitor.get(f"{TOPIC}/practice")
    assert re.search(r'focus=easy">Easy <span class="muted">0/1', page)
    page = visitor.get(f"{TOPIC}/practice?focus=hard")
    assert "Mend the mask" in page
    told = answer(visitor, page, "16.0")
    assert "focus=hard" in told
    assert "focus" not in visitor.get(f"{TOPIC}/practice?focus=nonsense").split('class="levels')[0]


@pytest.mark.parametrize("mode", ["practice", "recall"])
def test_a_questions_page_leads_to_the_other_modes(visitor: Visitor, mode: str) -> None:
    assert f'href="{TOPIC}/walk"' in visitor.get(f"{TOPIC}/{mode}")
