"""Confidence in four words: stated before the answer with one key, stored with it, and compared with the result."""

import re

import pytest

from clearhead.course import Calibration
from clearhead.studio.learner.confidence import FEWEST, LEVELS, chance_of, level_outcomes, nearest_level
from studio.conftest import ON_BOTH, Visitor
from studio.learn.test_pages import answer

QUESTION = "/items/scale-of-logits"


@pytest.mark.parametrize("database", ON_BOTH, indirect=True)
@pytest.mark.parametrize("word", [*(level.id for level in LEVELS), "", "true", "certain"])
def test_what_is_said_is_kept_with_the_answer_and_nothing_else_is(visitor: Visitor, word: str) -> None:
    told = answer(visitor, visitor.get(QUESTION), "16.0", **({"sure": word} if word else {}))
    (kept,) = (one for _, one in visitor.context.store.attempts())
    assert kept.confidence == chance_of(word)
    level = nearest_level(kept.confidence)
    assert (f"you said: {level.name}." in told) if level else ("you said:" not in told)


def test_a_question_asks_before_the_answer_with_one_key_each_and_takes_none(visitor: Visitor) -> None:
    page = visitor.get(QUESTION)
    offered = re.findall(r'<label data-key="(\d)">([^<]+?) <kbd.*?value="(\w+)"(| checked)>', page)
    assert [(key, name, id) for key, name, id, _ in offered] == [(one.key, one.name, one.id) for one in LEVELS]
    assert not any(checked for *_, checked in offered), "nothing is said for the learner"
    again = visitor.post("/help", ticket=visitor.ticket(page), hint="true", sure="unsure")
    assert re.search(r'value="unsure" checked', again), "a hint does not unsay it"
    assert 'name="sure"' not in visitor.get("/items/what-is-lse"), "a card is graded by the learner"


def test_words_are_far_enough_apart_for_the_bands_of_the_course() -> None:
    assert [nearest_level(level.stated) for level in LEVELS] == list(LEVELS)
    bands = {int(level.stated * 5) for level in LEVELS}
    assert len(bands) == len(LEVELS)
    assert nearest_level(None) is None


def test_each_word_is_compared_with_what_came_of_it() -> None:
    found = level_outcomes(Calibration(47, 0.2, ((0.3, 2 / 3, 3), (0.7, 0.7, 20), (0.9, 0.5, 24))))
    assert [(one.level.id, one.right, one.count) for one in found] == [
        ("guess", 2, 3), ("unsure", 0, 0), ("fairly", 14, 20), ("sure", 12, 24),
    ]  # fmt: skip
    assert [one.verdict for one in found] == [
        "too few to tell", "not used yet", "as often as you say", "less often than you say",
    ]  # fmt: skip
    (more, *_) = level_outcomes(Calibration(40, 0.2, ((0.3, 0.8, 40),)))
    assert more.verdict == "more often than you say"
    assert more.count >= FEWEST


@pytest.mark.slow
def test_progress_says_it_in_words_in_a_picture_and_in_a_table(visitor: Visitor) -> None:
    for word, text in (("sure", "16.0"), ("sure", "4.0"), ("guess", "4.0")):
        visitor.later(seconds=5)
        page = visitor.get("/items/mend-the-mask")
        answer(visitor, page, text, sure=word)
    page = visitor.get("/progress")
    words = " ".join(re.sub(r"<[^>]+>", "", page).split())
    assert "When you say “sure”, you are right 1 of 2: too few to tell" in words
    assert "When you say “a guess”, you are right 1 of 1" in words
    assert re.findall(r'<text x="[\d.]+" y="[-\d.]+" class="mid">(\d+/\d+)</text>', page) == ["1/1", "1/2"]
    table = " ".join(page[page.index("You said</th>") :].split())
    rows = re.findall(
        r'<th scope="row" class="plain">([^<]+)</th><td class="number">(\d of 10)</td>.*?"number">(\d)<', table
    )
    assert rows == [
        ("a guess", "3 of 10", "1"),
        ("unsure", "5 of 10", "0"),
        ("fairly sure", "7 of 10", "0"),
        ("sure", "9 of 10", "2"),
    ]
