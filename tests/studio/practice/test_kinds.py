"""Every kind of item, really proved and really graded, through the pages of a learner without JavaScript."""

import re
import threading
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from clearhead import sandbox
from clearhead.course import KINDS
from clearhead.studio.app.application import create
from clearhead.studio.explore import experiments as experiment
from clearhead.studio.library.library import Shelf, fill
from clearhead.studio.questions.question import FORMS, Question
from clearhead.studio.text.field_limits import LONGEST
from clearhead.studio.web.settings import Settings
from studio.conftest import START, Visitor

PACK = Path(__file__).parents[2] / "packs" / "good"

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be proved here: {sandbox.explain()}")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return fill([PACK], tmp_path_factory.mktemp("proofs"))


@pytest.fixture
def visitor(tmp_path: Path, shelf: Shelf) -> Iterator[Visitor]:
    app = create(Settings(data=tmp_path), shelf)
    app.state.desk.now = lambda: START
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield Visitor(client, app.state.desk)


def of_kind(shelf: Shelf, kind: str) -> str:
    return next(item.id for item in shelf.items.values() if item.kind == kind)


def question(visitor: Visitor, page: str) -> Question:
    """The question a page puts, as the studio knows it."""
    from clearhead.studio.practice.asking import asked

    return asked(visitor.desk, visitor.desk.tickets.read(visitor.ticket(page)))


def right(put: Question) -> dict[str, object]:
    """The fields of a right answer."""
    proved = put.proved
    if put.form == "options":
        return {"response": [one.letter for one in put.right]}
    if put.form == "typed":
        return {"typed": proved.answer}
    if put.form == "worked":
        return {f"step-{step.key}": step.result for step in put.asked_steps}
    if put.form == "explain":
        return {"text": proved.answer, "confirmed": "1", "tick": [one.id for one in proved.criteria]}
    if put.form == "code":
        return {"program": proved.solution.replace("\n", "\r\n")}  # as browsers send lines
    if put.form == "order":
        places = {key: str(place) for place, key in enumerate(proved.orders[0], 1)}
        return {f"place-{one.letter}": places[one.step.key] for one in put.loose_steps}
    if put.form == "match":
        letters = {one.option.key: one.letter for one in put.options}
        return {f"pair-{step.key}": letters[step.right] for step in proved.steps}
    return {"response": "good"}


def wrong(put: Question) -> dict[str, object]:
    """The fields of a wrong answer, as complete as a right one."""
    fields = right(put)
    if put.form == "options":
        return {"response": [next(one.letter for one in put.options if not one.option.correct)]}
    if put.form in ("worked", "typed"):
        return dict.fromkeys(fields, "nothing of the sort")
    if put.form == "explain":
        return {**fields, "tick": []}
    if put.form == "code":
        return {"program": put.proved.starter or "pass"}
    if put.form == "card":
        return {"response": "again"}
    if put.form == "order":
        return {name: str(len(fields) + 1 - int(str(place))) for name, place in fields.items()}
    values = list(fields.values())
    return dict(zip(fields, values[1:] + values[:1], strict=True))


def test_every_kind_has_a_form_and_an_item_here(shelf: Shelf) -> None:
    assert set(FORMS) == set(KINDS) == {item.kind for item in shelf.items.values()}
    assert not shelf.failed


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_answer_is_right_and_a_wrong_one_told_why(visitor: Visitor, shelf: Shelf, kind: str) -> None:
    id = of_kind(shelf, kind)
    for fields, expected in ((wrong, False), (right, True)):
        page = visitor.get(f"/items/{id}")
        visitor.later(seconds=5)
        told = visitor.post("/answer", ticket=visitor.ticket(page), **fields(question(visitor, page)))
        assert [one.correct for one in visitor.desk.progress.history][-1] is expected
        if kind != "card":
            assert ("Right" in told) is expected
            assert re.sub(r"<[^>]+>", "", str(shelf.proved[id].rule))[:12] in re.sub(r"<[^>]+>", "", told)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"card"}))
def test_an_incomplete_answer_is_asked_for_again_and_not_kept(visitor: Visitor, shelf: Shelf, kind: str) -> None:
    page = visitor.get(f"/items/{of_kind(shelf, kind)}")
    again = visitor.post("/answer", status=422, ticket=visitor.ticket(page))
    assert 'role="alert"' in again
    assert visitor.ticket(again) == visitor.ticket(page)
    assert not visitor.desk.progress.history


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"card"}))
def test_no_page_holds_its_answer_before_the_attempt(visitor: Visitor, shelf: Shelf, kind: str) -> None:
    id = of_kind(shelf, kind)
    page, proved = visitor.get(f"/items/{id}"), shelf.proved[id]
    put = question(visitor, page)
    hidden = [option.rationale for option in proved.options] + [option.belief for option in proved.options]
    hidden += [proved.solution, *proved.rationales.values()] + [criterion.text for criterion in proved.criteria]
    if put.form == "explain":
        hidden.append(proved.answer)
    for secret in filter(None, (text.strip() for text in hidden)):
        assert secret not in page
    for step in put.asked_steps:
        assert f">{step.result}<" not in page or put.form != "worked"
    assert len({option.key for option in proved.options}) == len(proved.options)


def test_a_worked_example_leaves_one_more_step_after_each_success(visitor: Visitor, shelf: Shelf) -> None:
    id = of_kind(shelf, "worked")
    asked = []
    for _ in range(3):
        page = visitor.get(f"/items/{id}")
        asked.append(page.count('name="step-'))
        visitor.later(seconds=5)
        visitor.post("/answer", ticket=visitor.ticket(page), **right(question(visitor, page)))
    assert asked[:2] == [1, 2]
    assert asked[2] == min(3, len(shelf.proved[id].steps))


def test_free_text_is_compared_and_the_learner_decides(visitor: Visitor, shelf: Shelf) -> None:
    page = visitor.get(f"/items/{of_kind(shelf, 'explain')}")
    ticket = visitor.ticket(page)
    compared = visitor.post("/answer", ticket=ticket, text="Words that <b>say</b> little.")
    assert "One good answer" in compared
    assert "&lt;b&gt;say" in compared
    assert not visitor.desk.progress.history
    ticks = re.findall(r'name="tick" value="([^"]+)"', compared)
    visitor.post("/answer", ticket=ticket, text="Words.", confirmed="1", tick=ticks)
    assert visitor.desk.progress.history[0].correct


def test_an_order_that_works_is_shown_after_one_that_does_not(visitor: Visitor, shelf: Shelf) -> None:
    id = of_kind(shelf, "order")
    page = visitor.get(f"/items/{id}")
    told = visitor.post("/answer", ticket=visitor.ticket(page), **wrong(question(visitor, page)))
    shown = re.sub(r"<[^>]+>", "", told[told.index("An order that works") :])
    proved = shelf.proved[id]
    codes = {step.key: step.code for step in proved.steps}
    assert "".join("".join(codes[key].split()) for key in proved.orders[0]) in "".join(shown.split())


def test_a_failed_program_is_kept_to_go_on_with(visitor: Visitor, shelf: Shelf) -> None:
    id = of_kind(shelf, "code")
    page = visitor.get(f"/items/{id}")
    told = visitor.post("/answer", ticket=visitor.ticket(page), program="# mine\nprint('no')")
    onward = re.search(r'href="(/items/[^"]+edit=[^"]+)"', told)
    assert onward
    assert "# mine" in visitor.get(onward[1].replace("&amp;", "&"))
    assert "failed" in told
    assert "One solution" not in told


def test_a_question_asked_again_has_other_numbers_and_old_answers_keep_theirs(visitor: Visitor, shelf: Shelf) -> None:
    item = next(item for item in shelf.items.values() if item.variants)
    desk = visitor.desk
    first = question(visitor, visitor.get(f"/items/{item.id}"))
    page = visitor.get(f"/items/{item.id}")
    told = visitor.post("/answer", ticket=visitor.ticket(page), **right(question(visitor, page)))
    assert "Right" in told
    desk.variants.prepare(item, desk.shelf.pack_of(item.id), item.seed + 1).result()
    page = visitor.get(f"/items/{item.id}")
    again = question(visitor, page)
    assert (again.ticket.seed, again.proved.receipt.seed) == (item.seed + 1, item.seed + 1)
    assert any(desk.proved(item, item.seed + more).values != first.proved.values for more in range(1, 4))
    visitor.later(seconds=5)
    visitor.post("/answer", ticket=visitor.ticket(page), **right(again))
    old, new = desk.progress.history
    assert (old.seed, new.seed) == (item.seed, item.seed + 1)
    assert (old.correct, new.correct) == (True, True)
    assert again.proved.answer in re.sub(r"<[^>]+>", "", visitor.get(f"/attempts/{new.id}"))


def test_numbers_that_do_not_hold_are_not_shown(
    visitor: Visitor, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clearhead.errors import ProofError
    from clearhead.studio.library import variants

    def refuse(*_: object, **__: object) -> None:
        raise ProofError("it does not hold at this seed")

    monkeypatch.setattr(variants, "prove", refuse)
    item = next(item for item in shelf.items.values() if item.variants)
    desk = visitor.desk
    assert desk.proved(item, item.seed + 1) == shelf.proved[item.id]
    assert desk.next_seed(item) == item.seed


@pytest.mark.parametrize(("kind", "field"), [("worked", "step"), ("explain", "text"), ("code", "program")])
def test_an_answer_too_long_is_refused_in_words_and_kept(visitor: Visitor, shelf: Shelf, kind: str, field: str) -> None:
    page, most = visitor.get(f"/items/{of_kind(shelf, kind)}"), LONGEST[field]
    names = [f"step-{step.key}" for step in question(visitor, page).asked_steps] if kind == "worked" else [field]
    long = "<x" * (most // 2) + "y"
    said = visitor.post("/answer", 422, ticket=visitor.ticket(page), **dict.fromkeys(names, long))
    assert f"{most + 1:,} characters" in said
    assert f"at most {most:,}" in said
    assert escape(long) in said
    assert not visitor.desk.history.attempts


def test_a_typed_output_too_long_is_refused_in_words_and_kept(visitor: Visitor, shelf: Shelf) -> None:
    from clearhead.studio.practice.asking import new_ticket

    ticket = new_ticket(visitor.desk, shelf.items[of_kind(shelf, "predict")], "practice").but(typed=True)
    long = "9" * (LONGEST["typed"] + 1)
    said = visitor.post("/answer", 422, ticket=visitor.desk.tickets.sign(ticket), typed=long)
    assert f"at most {LONGEST['typed']:,}" in said
    assert long in said


def test_no_page_thread_runs_a_program(visitor: Visitor, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    owners: set[str] = set()

    def noting(call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any, **named: Any) -> Any:
            threads.append(threading.current_thread().name)
            owners.add(named["owner"])
            return call(*given, **named)

        return noted

    for name in ("run", "judge"):
        monkeypatch.setattr(sandbox, name, noting(getattr(sandbox, name)))
    for kind in ("code", "order"):
        page = visitor.get(f"/items/{of_kind(shelf, kind)}")
        answered = visitor.post("/answer", ticket=visitor.ticket(page), **wrong(question(visitor, page)))
        assert "Not" in answered
    seen = len(threads)
    assert seen >= 2
    visitor.desk._verdicts.clear()  # as in another process, or after a start
    for attempt in visitor.desk.history.attempts:
        visitor.get(f"/attempts/{attempt.id}")
    pack, this = next(iter(shelf.topics()))
    experiment._kept.clear()  # what an earlier test measured
    visitor.get(f"/topics/{pack.id}/{this.id}/experiment?name=scale&run=true")
    visitor.get("/experiments/heads")
    assert len(threads) > seen + 2
    assert all(name.startswith(("programs", "experiments")) for name in threads), threads
    assert owners == {visitor.desk.owner, "experiments"}
