"""Try: read, predict, run, and only then change it."""

import re
from dataclasses import replace
from html import unescape

import pytest

from clearhead import sandbox
from clearhead.sandbox import Chunk, Outcome, Program
from clearhead.studio.explore.seed_substitution import with_seed_substituted
from clearhead.studio.text.formatting import STOPPED
from studio import sample
from studio.conftest import Visitor
from studio.learn.test_pages import TOPIC, answer

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be run here: {sandbox.explain()}")


def run(visitor: Visitor, **fields: str) -> str:
    return visitor.post(f"{TOPIC}/try", item="scale-of-logits", **fields)


def test_at_first_there_is_a_program_to_read_and_no_output(visitor: Visitor) -> None:
    page = visitor.get(f"{TOPIC}/try")
    assert 'name="prediction"' in page
    assert 'name="program"' not in page
    assert 'class="output"' not in page


@pytest.mark.slow
def test_a_program_shows_its_numbers_and_not_how_they_were_drawn() -> None:
    pack = sample.shipped_course()
    whole, shown = [], []
    for item in pack.items.values():
        if item.kind == "predict":
            source = "\n".join(program.source for program in (*item.role("setup"), *item.role("given")))
            for seed in (0, 7):
                whole.append(f"seed = {seed}\n{source}")
                shown.append(with_seed_substituted(source, seed))
    assert len(shown) > 50
    assert not [one for one in shown[::2] if "seed" in one.replace("manual_seed(0)", "") or "import random" in one]
    ran = sandbox.run_each([Program((Chunk(one),)) for one in (*whole, *shown)], preload=pack.preload)
    assert ran
    printed = [(one.stdout, one.raised and one.raised.message) for one in ran]
    assert printed[: len(whole)] == printed[len(whole) :]


@pytest.mark.parametrize("source", ["print(", "seed = 3\nprint(seed)", "def f(seed):\n    return seed\nprint(f(2))"])
def test_a_program_with_a_seed_of_its_own_is_left_as_it_is(source: str) -> None:
    assert with_seed_substituted(source, 5).endswith(source)


@pytest.mark.parametrize("why", sorted(STOPPED))
def test_why_a_program_was_stopped_is_reported(visitor: Visitor, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    outcome = sandbox.run("print(1)")
    monkeypatch.setattr(sandbox, "run", lambda *_, **__: replace(outcome, stopped=why))
    page = run(visitor, program="print(1)")
    assert f"Stopped: it {STOPPED[why].removeprefix('it ')}" % {"seconds": 10} in unescape(page)


def test_every_reason_for_stopping_has_words() -> None:
    """Outcome.stopped is documented as these, and sandbox.judge has words for the same."""
    assert (
        set(STOPPED)
        == set(sandbox._WHY)
        == set(re.findall(r'"(\w+)"', Outcome.__doc__.partition("stopped:")[2].partition("\n        raised")[0]))
    )


def test_a_prediction_is_answered_with_the_belief_behind_it(visitor: Visitor) -> None:
    page = run(visitor, prediction="16.0")
    assert "Not what you said" in page
    assert "nothing divides the logits" in page
    assert "<msqrt>" in page  # the rule
    assert page.index(">16.0<") < page.index(">4.0<")
    assert "As you said" in run(visitor, prediction="tensor(4.)")
    assert "Not what you said" in run(visitor, prediction="a")  # the key of the right option is no prediction
    assert not visitor.context.progress.history


@pytest.mark.slow
def test_a_wrong_prediction_is_among_the_mistakes_until_it_is_put_right(visitor: Visitor) -> None:
    run(visitor, prediction="4.0")
    run(visitor, program="print(1)", prediction="2")  # of another program
    assert "None of yours yet" in visitor.get(f"{TOPIC}/mistakes")
    run(visitor, prediction="a")  # no option's key: its output is typed
    run(visitor, prediction="16")
    page = visitor.get(f"{TOPIC}/mistakes")
    assert "Belief 1: nothing divides the logits." in page
    assert page.count('<li class="wrong">') == 1  # the newest of each program
    assert f'<a href="{TOPIC}/try?item=scale-of-logits">' in page
    assert "Not put right yet" in page
    run(visitor, prediction="4.0")
    assert "Put right since" in visitor.get(f"{TOPIC}/mistakes")


@pytest.mark.slow
def test_a_prediction_that_no_belief_explains_is_shown_beside_what_is_right(visitor: Visitor) -> None:
    run(visitor, prediction="1234.5 <b>")
    assert "You gave <code>1234.5 &lt;b&gt;</code>; it is <code>4.0</code>." in visitor.get(f"{TOPIC}/mistakes")
    run(visitor, prediction="9" * 20_000)
    page = visitor.get(f"{TOPIC}/mistakes")
    assert "999" not in page
    assert "Not put right yet" in page


@pytest.mark.slow
def test_an_answer_in_practice_puts_a_prediction_right_and_a_new_start_sets_it_aside(visitor: Visitor) -> None:
    run(visitor, prediction="16")
    visitor.later(seconds=9)
    answer(visitor, visitor.get("/items/scale-of-logits"), "4.0")
    assert "Put right since" in visitor.get(f"{TOPIC}/mistakes")
    visitor.post("/settings/start-over")
    assert "None of yours yet" in visitor.get(f"{TOPIC}/mistakes")
    visitor.post("/settings/start-over", back="true")
    assert "Put right since" in visitor.get(f"{TOPIC}/mistakes")


def test_then_it_can_be_changed_and_the_rule_is_not_said_of_another_program(visitor: Visitor) -> None:
    page = run(visitor)
    assert "It ran" in page
    assert 'name="program"' in page
    page = run(visitor, program="print(16.0)", prediction="16")
    assert "As you said" in page
    assert "nothing divides the logits" not in page
    assert 'class="rule"' not in page


def test_an_exception_can_be_predicted_by_its_name(visitor: Visitor) -> None:
    assert "As you said" in run(visitor, program="1 / 0", prediction="ZeroDivisionError")
    assert "Not what you said" in run(visitor, program="1 / 0", prediction="ValueError")
