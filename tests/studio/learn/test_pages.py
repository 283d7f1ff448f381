"""A learner without JavaScript: reads, recalls, answers wrong, reads why, answers right, takes it back."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from studio.conftest import ON_BOTH, Visitor, visitor_of
from studio.sample import PROVED

pytestmark = pytest.mark.parametrize("database", ON_BOTH, indirect=True)
TOPIC = "/topics/attention/one-head"


def letter_of(page: str, text: str) -> str:
    """The letter under which a page shows the option with this text."""
    found = re.search(rf'value="([a-z])" data-letter(?:(?!</label>).)*<code>{re.escape(text)}</code>', page, re.S)
    assert found, page
    return found[1]


def answer(visitor: Visitor, page: str, *texts: str, **more: object) -> str:
    letters = [letter_of(page, text) for text in texts]
    return visitor.post("/answer", ticket=visitor.ticket(page), response=letters, **more)


@pytest.mark.slow
def test_the_first_visit_is_one_sentence_one_picture_one_button(visitor: Visitor) -> None:
    page = visitor.get("/")
    assert page.count('class="button main"') == 1
    assert f'href="{TOPIC}/read"' in page
    assert len(re.findall(r'class="link"', page)) == 5


def test_the_first_visit_greets_with_the_pack_that_is_served(visitor: Visitor) -> None:
    library = visitor.context.library
    other = replace(library.packs[0], id="spanish", title="Spanish in ten days", summary="Verbs first.")
    visitor.context.set_library(replace(library, packs=(other,)))
    page = visitor.get("/")
    assert "<h1>Spanish in ten days</h1>" in page
    assert "Verbs first." in page
    assert "<svg" not in page
    assert "one head decides" not in page
    assert page.count('class="button main"') == 1
    visitor.context.set_library(replace(library, packs=()))
    assert "No course is here yet" in visitor.get("/")


def test_home_then_says_continue_due_and_weak(visitor: Visitor) -> None:
    page = visitor.get("/items/scale-of-logits")
    answer(visitor, page, "16.0")
    assert "Scaling" not in visitor.get("/"), "one answer says little"
    answer(visitor, visitor.get("/items/which-hold"), "0.25")
    visitor.get(f"{TOPIC}/read")
    visitor.later(minutes=30)
    home = visitor.get("/")
    assert f'<a href="{TOPIC}/read"' in home
    assert "5 questions, about" in home
    assert "2 to see again, 3 new." in home
    assert "Scaling" in home


def test_a_wrong_answer_is_shown_why(visitor: Visitor) -> None:
    page = answer(visitor, visitor.get("/items/scale-of-logits"), "16.0")
    assert "Not right: you chose" in page
    assert "nothing divides the logits" in page  # what its holder believes
    assert "counterexample 1" in page  # what was run
    assert "Rationale 1." in page
    assert "<msqrt>" in page  # the rule, its formula drawn
    assert page.index('class="yours"') < page.index("16.0") < page.index('class="correct"')


@pytest.mark.slow
def test_a_wrong_answer_comes_back_and_can_be_put_right(visitor: Visitor) -> None:
    answer(visitor, visitor.get("/items/scale-of-logits"), "16.0")
    visitor.later(seconds=9)
    page = answer(visitor, visitor.get("/items/scale-of-logits"), "4.0")
    assert "Right:" in page
    assert "1 of 3 right" in visitor.get(TOPIC)


def test_several_right_options_are_all_needed(visitor: Visitor) -> None:
    page = visitor.get("/items/which-hold")
    assert 'type="checkbox"' in page
    assert "Not right" in answer(visitor, page, "4.0")
    assert "Right:" in answer(visitor, visitor.get("/items/which-hold"), "4.0", "16.0")


def test_a_card_is_shown_turned_and_graded(visitor: Visitor) -> None:
    page = visitor.get(f"{TOPIC}/recall")
    ticket = visitor.ticket(page)
    turned = visitor.get(f"/reveal?ticket={ticket}")
    assert 'class="card-back"' in turned
    after = visitor.post("/answer", ticket=ticket, response="good")
    assert "Take the last grade back" in after
    assert visitor.context.progress.history[0].correct


def test_only_a_card_can_be_revealed(visitor: Visitor) -> None:
    ticket = visitor.ticket(visitor.get("/items/scale-of-logits"))
    visitor.get(f"/reveal?ticket={ticket}", status=400)


@pytest.mark.parametrize("id", sorted(PROVED))
def test_nothing_of_the_answer_is_in_a_page_before_the_attempt(visitor: Visitor, id: str) -> None:
    page = visitor.get(f"/items/{id}")
    for secret in (
        "Rationale",
        "Belief",
        "counterexample",
        "correct",
        "Logits are divided",
        "What softmax",
        "no-scale",
    ):
        assert secret not in page
    proved = PROVED[id]
    ticket = visitor.ticket(page)
    for option in proved.options:
        assert f'"{option.key}" checked' not in page
    assert len(ticket) < 300


@pytest.mark.slow
def test_letters_do_not_give_the_answer_away(visitor: Visitor) -> None:
    shown = {letter_of(visitor.get("/items/scale-of-logits"), "4.0") for _ in range(40)}
    assert shown == set("abcd")


def test_a_form_sent_twice_counts_once_and_shows_the_first(visitor: Visitor) -> None:
    page = visitor.get("/items/scale-of-logits")
    assert "Not right" in answer(visitor, page, "16.0")
    assert "Not right" in answer(visitor, page, "4.0")
    assert [one.correct for one in visitor.context.progress.history] == [False]


def test_nothing_ticked_asks_again_and_keeps_the_question(visitor: Visitor) -> None:
    page = visitor.get("/items/scale-of-logits")
    again = visitor.post("/answer", status=422, ticket=visitor.ticket(page))
    assert "Choose an option first." in again
    assert re.findall(r'<span class="text">(.*?)</span></label>', again) == re.findall(
        r'<span class="text">(.*?)</span></label>', page
    )
    assert not visitor.context.progress.history


def test_confidence_hints_and_time_are_kept(visitor: Visitor) -> None:
    page = visitor.get("/items/scale-of-logits")
    for _ in range(2):
        page = visitor.post("/help", ticket=visitor.ticket(page), hint="true")
    visitor.later(seconds=21)
    told = answer(visitor, page, "4.0", sure="fairly")
    assert "Before the answer you said: fairly sure." in told
    (kept,) = visitor.context.progress.history
    assert (kept.confidence, kept.hints, kept.seconds, kept.seed) == (0.7, 2, 21.0, 7)


def test_the_last_grade_can_be_taken_back(visitor: Visitor) -> None:
    answer(visitor, visitor.get("/items/scale-of-logits"), "16.0")
    id = visitor.context.progress.history[0].id
    page = visitor.post("/undo", attempt=id)
    assert 'id="question"' in page
    assert not visitor.context.progress.history
    assert "it does not count" in visitor.get(f"/attempts/{id}")
    visitor.post("/undo", attempt=id)
    visitor.post("/undo", attempt="nobody", status=404)
    assert len(visitor.context.store.attempts()) == 2


def test_practice_goes_from_easy_to_hard_and_then_rests(visitor: Visitor) -> None:
    seen = []
    for _ in range(3):
        page = visitor.get(f"{TOPIC}/practice")
        seen.append(re.search(r'<h1 class="label">([^<]+)', page)[1])  # type: ignore[index]
        texts = ("4.0", "16.0") if "checkbox" in page else ("4.0",)
        answer(visitor, page, *texts)
        visitor.later(seconds=30)
    assert seen == ["Scale of logits", "Which hold", "Mend the mask"]


def test_attempts_survive_a_restart(tmp_path: Path, database: str | None) -> None:
    client, visitor = visitor_of(tmp_path, database)
    with client:
        page = visitor.get("/items/scale-of-logits")
        answer(visitor, page, "16.0")
        old = visitor.ticket(page)
    client, visitor = visitor_of(tmp_path, database)
    with client:
        assert len(visitor.context.progress.history) == 1
        visitor.post("/answer", ticket=old, response="a")  # a form left open in a tab
        assert len(visitor.context.progress.history) == 1


def test_progress_shows_concepts_days_confidence_and_answers(visitor: Visitor) -> None:
    assert "Nothing yet" in visitor.get("/progress")
    answer(visitor, visitor.get("/items/scale-of-logits"), "16.0", sure="sure")
    visitor.later(minutes=3)
    page = visitor.get("/progress")
    assert "1 days with practice" not in page
    for said in ("Scaling", "Scale of logits", "3 minutes ago", "1 answer<", "you are right 0 of 1", "9 of 10"):
        assert said in page


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/nope", 404),
        ("/topics/attention/none", 404),
        ("/topics/none/one-head/read", 404),
        ("/topics/attention/later/recall", 404),
        ("/topics/attention/later/read", 404),
        ("/items/none", 404),
        ("/attempts/none", 404),
        ("/reveal?ticket=forged", 400),
        ("/reveal", 422),
        ("/static/none.css", 404),
        ("/static/../app.py", 404),
        ("/views/..%2f..%2fapp.js", 404),
        ("/items/%00", 404),
        ("/answer", 405),
        ("/topics/attention/later", 200),
    ],
)
def test_every_wrong_address_gets_a_page_that_says_so(visitor: Visitor, address: str, status: int) -> None:
    page = visitor.get(address, status)
    assert "<main" in page
    assert "Traceback" not in page
    assert "Method Not Allowed" not in page


def test_a_question_whose_answer_is_being_computed_says_so(visitor: Visitor) -> None:
    whole = visitor.context.library
    visitor.context.set_library(replace(whole, proved={}, coming=5))
    assert "still being computed" in visitor.get("/items/scale-of-logits", 404)
    assert "There is no question none" in visitor.get("/items/none", 404)
    assert "5 more are being computed" in visitor.get(TOPIC)
    visitor.context.set_library(whole)
    visitor.get("/items/scale-of-logits")
