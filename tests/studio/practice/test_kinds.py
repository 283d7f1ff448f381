"""Every kind of item, really proved and really graded, through the pages of a learner without JavaScript."""

import re
import threading
from collections.abc import Callable, Iterator
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from clearhead import sandbox
from clearhead.course import KINDS
from clearhead.studio.app.application import create
from clearhead.studio.explore.experiments import routes as experiments
from clearhead.studio.learn import path
from clearhead.studio.library.library import Library, fill
from clearhead.studio.questions.question import FORMS, Question
from clearhead.studio.text.field_limits import LONGEST
from clearhead.studio.web.settings import Settings
from studio.conftest import START, Visitor

PACK = Path(__file__).parents[2] / "packs" / "good"

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be proved here: {sandbox.explain()}")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return fill([PACK], tmp_path_factory.mktemp("proofs"))


@pytest.fixture
def visitor(tmp_path: Path, library: Library) -> Iterator[Visitor]:
    app = create(Settings(data=tmp_path), library)
    app.state.context.now = lambda: START
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield Visitor(client, app.state.context)


def of_kind(library: Library, kind: str) -> str:
    return next(item.id for item in library.items.values() if item.kind == kind)


def question(visitor: Visitor, page: str) -> Question:
    """The question a page puts, as the studio knows it."""
    from clearhead.studio.practice.asking import asked

    return asked(visitor.context, visitor.context.drafts.read(visitor.ticket(page)))


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


def test_every_kind_has_a_form_and_an_item_here(library: Library) -> None:
    assert set(FORMS) == set(KINDS) == {item.kind for item in library.items.values()}
    assert not library.failed


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_answer_is_right_and_a_wrong_one_shown_why(visitor: Visitor, library: Library, kind: str) -> None:
    id = of_kind(library, kind)
    for fields, expected in ((wrong, False), (right, True)):
        page = visitor.get(f"/items/{id}")
        visitor.later(seconds=5)
        told = visitor.post("/answer", ticket=visitor.ticket(page), **fields(question(visitor, page)))
        assert [one.correct for one in visitor.context.progress.history][-1] is expected
        if kind != "card":
            assert ("Right" in told) is expected
            assert re.sub(r"<[^>]+>", "", str(library.proved[id].rule))[:12] in re.sub(r"<[^>]+>", "", told)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"card"}))
def test_an_incomplete_answer_is_asked_for_again_and_not_kept(visitor: Visitor, library: Library, kind: str) -> None:
    page = visitor.get(f"/items/{of_kind(library, kind)}")
    again = visitor.post("/answer", status=422, ticket=visitor.ticket(page))
    assert 'role="alert"' in again
    assert visitor.ticket(again) == visitor.ticket(page)
    assert not visitor.context.progress.history


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"card"}))
def test_no_page_holds_its_answer_before_the_attempt(visitor: Visitor, library: Library, kind: str) -> None:
    id = of_kind(library, kind)
    page, proved = visitor.get(f"/items/{id}"), library.proved[id]
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


def test_a_worked_example_leaves_one_more_step_after_each_success(visitor: Visitor, library: Library) -> None:
    id = of_kind(library, "worked")
    asked = []
    for _ in range(3):
        page = visitor.get(f"/items/{id}")
        asked.append(page.count('name="step-'))
        visitor.later(seconds=5)
        visitor.post("/answer", ticket=visitor.ticket(page), **right(question(visitor, page)))
    assert asked[:2] == [1, 2]
    assert asked[2] == min(3, len(library.proved[id].steps))


def test_a_step_is_asked_with_its_text(visitor: Visitor, library: Library) -> None:
    page = visitor.get(f"/items/{of_kind(library, 'worked')}")
    asked = question(visitor, page).asked_steps
    assert [step.text.split("\n\n")[1] for step in asked] == ["The root of that."]
    assert "The root of that." in page


def test_free_text_is_compared_and_the_learner_decides(visitor: Visitor, library: Library) -> None:
    page = visitor.get(f"/items/{of_kind(library, 'explain')}")
    ticket = visitor.ticket(page)
    compared = visitor.post("/answer", ticket=ticket, text="Words that <b>say</b> little.")
    assert "One good answer" in compared
    assert "&lt;b&gt;say" in compared
    assert not visitor.context.progress.history
    ticks = re.findall(r'name="tick" value="([^"]+)"', compared)
    visitor.post("/answer", ticket=ticket, text="Words.", confirmed="1", tick=ticks)
    assert visitor.context.progress.history[0].correct


def test_an_order_that_works_is_shown_after_one_that_does_not(visitor: Visitor, library: Library) -> None:
    id = of_kind(library, "order")
    page = visitor.get(f"/items/{id}")
    told = visitor.post("/answer", ticket=visitor.ticket(page), **wrong(question(visitor, page)))
    shown = re.sub(r"<[^>]+>", "", told[told.index("An order that works") :])
    proved = library.proved[id]
    codes = {step.key: step.code for step in proved.steps}
    assert "".join("".join(codes[key].split()) for key in proved.orders[0]) in "".join(shown.split())


def test_a_failed_program_is_kept_to_go_on_with(visitor: Visitor, library: Library) -> None:
    id = of_kind(library, "code")
    page = visitor.get(f"/items/{id}")
    told = visitor.post("/answer", ticket=visitor.ticket(page), program="# mine\nprint('no')")
    onward = re.search(r'href="(/items/[^"]+edit=[^"]+)"', told)
    assert onward
    assert "# mine" in visitor.get(onward[1].replace("&amp;", "&"))
    assert "failed" in told
    assert "One solution" not in told


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        ("print('hel' + 'lo')", "hello"),
        ("print(1)\nraise KeyError('gone')", "1\nKeyError: 'gone'"),
        ("x = 1", "It ran to its end and printed nothing."),
        ("def f(:", "Line 1 is not Python yet"),
    ],
)
def test_a_program_runs_without_its_tests_and_no_try_is_counted(
    visitor: Visitor, library: Library, program: str, shown: str
) -> None:
    id = of_kind(library, "code")
    page = visitor.get(f"/items/{id}?mode=build")
    assert 'formaction="/programs/run"' in page
    fields = {"csrf": visitor.token(), "ticket": visitor.ticket(page), "program": program}
    told = unescape(visitor.client.post("/programs/run", data=fields).text)
    assert shown in told
    assert program in told
    assert not visitor.context.progress.history
    assert visitor.ticket(told) == visitor.ticket(page)


def test_a_script_gets_what_a_program_printed_as_data(visitor: Visitor, library: Library) -> None:
    page = visitor.get(f"/items/{of_kind(library, 'code')}?mode=build")
    fields = {"csrf": visitor.token(), "ticket": visitor.ticket(page), "program": "print('hel' + 'lo')"}
    assert visitor.client.post("/programs/run", data=fields, headers={"accept": "application/json"}).json() == {
        "output": "hello"
    }


def test_an_unsent_program_is_there_again_until_it_is_sent_or_thrown_away(visitor: Visitor, library: Library) -> None:
    id = of_kind(library, "code")
    page = visitor.get(f"/items/{id}?mode=build")
    fields = {"csrf": visitor.token(), "ticket": visitor.ticket(page), "program": "# half\r\nx = 1"}
    assert visitor.client.post("/programs/draft", data=fields).status_code == 204
    assert "# half\nx = 1" in visitor.get(f"/items/{id}?mode=build")
    assert "# half" not in visitor.get(f"/items/{id}?mode=build&fresh=true")
    assert "# half" not in visitor.get(f"/items/{id}?mode=build")
    visitor.client.post("/programs/draft", data=fields)
    visitor.post("/answer", ticket=visitor.ticket(page), program="# sent\nx = 2")
    assert "# sent" in visitor.get(f"/items/{id}?mode=build")


def test_a_failing_test_shows_what_it_called_the_program_with(visitor: Visitor, library: Library) -> None:
    page = visitor.get(f"/items/{of_kind(library, 'code')}?mode=build")
    told = visitor.post("/answer", ticket=visitor.ticket(page), program="def mean(xs):\n    return 3")
    assert "What it was called with" in told
    assert "xs = []" in told
    assert "xs = [2, 4]" not in told  # that test passed


def test_only_a_program_runs_without_tests(visitor: Visitor, library: Library) -> None:
    page = visitor.get(f"/items/{of_kind(library, 'choice')}")
    visitor.post("/programs/run", 400, ticket=visitor.ticket(page), program="print(1)")


def test_a_question_asked_again_has_other_numbers_and_old_answers_keep_theirs(
    visitor: Visitor, library: Library
) -> None:
    item = next(item for item in library.items.values() if item.variants)
    context = visitor.context
    first = question(visitor, visitor.get(f"/items/{item.id}"))
    page = visitor.get(f"/items/{item.id}")
    told = visitor.post("/answer", ticket=visitor.ticket(page), **right(question(visitor, page)))
    assert "Right" in told
    context.variants.prepare(item, context.library.pack_of(item.id), item.seed + 1).result()
    page = visitor.get(f"/items/{item.id}")
    again = question(visitor, page)
    assert (again.draft.seed, again.proved.receipt.seed) == (item.seed + 1, item.seed + 1)
    assert any(context.proved(item, item.seed + more).values != first.proved.values for more in range(1, 4))
    visitor.later(seconds=5)
    visitor.post("/answer", ticket=visitor.ticket(page), **right(again))
    old, new = context.progress.history
    assert (old.seed, new.seed) == (item.seed, item.seed + 1)
    assert (old.correct, new.correct) == (True, True)
    assert again.proved.answer in re.sub(r"<[^>]+>", "", visitor.get(f"/attempts/{new.id}"))


def test_numbers_that_do_not_hold_are_not_shown(
    visitor: Visitor, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clearhead.errors import ProofError
    from clearhead.studio.library import variants

    def refuse(*_: object, **__: object) -> None:
        raise ProofError("it does not hold at this seed")

    monkeypatch.setattr(variants, "prove", refuse)
    item = next(item for item in library.items.values() if item.variants)
    context = visitor.context
    assert context.proved(item, item.seed + 1) == library.proved[item.id]
    assert context.next_seed(item) == item.seed


@pytest.mark.parametrize(("kind", "field"), [("worked", "step"), ("explain", "text"), ("code", "program")])
def test_an_answer_too_long_is_refused_with_a_reason_and_kept(
    visitor: Visitor, library: Library, kind: str, field: str
) -> None:
    page, most = visitor.get(f"/items/{of_kind(library, kind)}"), LONGEST[field]
    names = [f"step-{step.key}" for step in question(visitor, page).asked_steps] if kind == "worked" else [field]
    long = "<x" * (most // 2) + "y"
    said = visitor.post("/answer", 422, ticket=visitor.ticket(page), **dict.fromkeys(names, long))
    assert f"{most + 1:,} characters" in said
    assert f"at most {most:,}" in said
    assert escape(long) in said
    assert not visitor.context.history.attempts


def test_a_typed_output_too_long_is_refused_with_a_reason_and_kept(visitor: Visitor, library: Library) -> None:
    from clearhead.studio.practice.asking import new_draft

    ticket = new_draft(visitor.context, library.items[of_kind(library, "predict")], "practice").but(typed=True)
    long = "9" * (LONGEST["typed"] + 1)
    said = visitor.post("/answer", 422, ticket=visitor.context.drafts.sign(ticket), typed=long)
    assert f"at most {LONGEST['typed']:,}" in said
    assert long in said


@pytest.mark.slow
def test_no_page_thread_runs_a_program(visitor: Visitor, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
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
        page = visitor.get(f"/items/{of_kind(library, kind)}")
        answered = visitor.post("/answer", ticket=visitor.ticket(page), **wrong(question(visitor, page)))
        assert "Not" in answered
    seen = len(threads)
    assert seen >= 2
    visitor.context._verdicts.clear()  # as in another process, or after a start
    for attempt in visitor.context.history.attempts:
        visitor.get(f"/attempts/{attempt.id}")
    pack, this = next(iter(library.topics()))
    experiments._kept.clear()  # what an earlier test measured
    monkeypatch.setattr(path, "experiments_of", lambda *_: ("heads", "scale"))  # this pack has none
    visitor.get(f"/topics/{pack.id}/{this.id}/experiment?name=scale&run=true")
    visitor.get("/experiments/heads")
    assert len(threads) > seen + 2
    assert all(name.startswith(("programs", "experiments")) for name in threads), threads
    assert owners == {visitor.context.owner, "experiments"}
