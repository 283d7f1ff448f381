"""The page of mistakes: every kind of wrong answer, with its counterexample and a link back."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearhead import sandbox
from clearhead.course import Attempt
from clearhead.studio.library.library import Library
from clearhead.studio.practice import mistakes
from studio.conftest import Visitor
from studio.learn.test_pages import TOPIC, answer
from studio.practice import test_kinds as kinds

QUESTION = "/items/scale-of-logits"
HERE = f"{TOPIC}/mistakes"


def test_a_chosen_belief_is_kept_with_what_was_run_and_the_way_back(visitor: Visitor) -> None:
    assert "None of yours yet" in visitor.get(HERE)
    answer(visitor, visitor.get(QUESTION), "16.0")
    page = visitor.get(HERE)
    assert "Belief 1: nothing divides the logits." in page
    assert "counterexample 1" in page
    assert "Not put right yet" in page
    assert re.search(r'href="/attempts/[^"]+">Scale of logits', page)
    assert 'href="/items/scale-of-logits?mode=practice">Try it again' in page
    visitor.later(seconds=9)
    answer(visitor, visitor.get(QUESTION), "4.0")
    page = visitor.get(HERE)
    assert "Put right since" in page
    assert "Try it again" not in page


def test_a_typed_answer_is_put_under_its_belief_or_beside_what_is_right(visitor: Visitor) -> None:
    answer(visitor, visitor.get(QUESTION), "4.0")
    for typed in ("16", "1234.5 <b>"):
        visitor.later(days=60)
        page = visitor.get("/review")
        assert 'name="typed"' in page
        visitor.post("/answer", ticket=visitor.ticket(page), typed=typed)
    page = visitor.get(HERE)
    assert "Belief 1: nothing divides the logits." in page
    assert "You gave <code>1234.5 &lt;b&gt;</code>; it is <code>4.0</code>." in page


def test_what_one_did_not_remember_is_no_mistake(visitor: Visitor) -> None:
    page = visitor.get("/items/what-is-lse?mode=recall")
    visitor.post("/answer", ticket=visitor.ticket(page), response="again")
    assert "None of yours yet" in visitor.get(HERE)


def test_a_long_list_says_how_much_it_leaves_out(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("16.0", "1.0"):
        answer(visitor, visitor.get(QUESTION), wrong)
        visitor.later(seconds=9)
    assert "more are older" not in visitor.get(HERE)
    monkeypatch.setattr(mistakes, "SHOWN", 1)
    assert "1 more are older or put right" in re.sub(r"\s+", " ", visitor.get(HERE))


@pytest.fixture(scope="module")
def proved(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return kinds.fill([kinds.PACK], tmp_path_factory.mktemp("proofs"))


@pytest.fixture
def taught(tmp_path: Path, proved: Library) -> Iterator[Visitor]:
    app = kinds.create(kinds.Settings(data=tmp_path), proved)
    app.state.context.now = lambda: kinds.START
    with kinds.TestClient(app, base_url="http://127.0.0.1") as client:
        yield Visitor(client, app.state.context)


@pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be proved here: {sandbox.explain()}")
@pytest.mark.parametrize("kind", sorted(set(kinds.KINDS) - {"card"}))
@pytest.mark.slow
def test_every_kind_of_wrong_answer_is_reported_with_its_own_reason(
    taught: Visitor, proved: Library, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = proved.items[kinds.of_kind(proved, kind)]
    page = taught.get(f"/items/{item.id}")
    put = kinds.question(taught, page)
    taught.post("/answer", ticket=taught.ticket(page), **kinds.wrong(put))
    (kept,) = taught.context.progress.history
    told = taught.context.verdict(put, kept.response)
    monkeypatch.setattr(sandbox, "run", None)  # the page itself runs nothing
    monkeypatch.setattr(sandbox, "judge", None)
    taught.context._verdicts.clear()
    pack = proved.pack_of(item.id)
    page = taught.get(f"/topics/{pack.id}/{item.topic}/mistakes")
    mine = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page[page.index("You have made these") :]))
    assert f"/attempts/{kept.id}" in page
    assert f'href="/items/{item.id}?mode=' in page
    assert re.sub(r"\W+", "", told.why)[:12] in re.sub(r"\W+", "", mine)
    if told.counterexample and told.counterexample != told.why:
        assert "What was run against it" in page
    if kind == "worked":
        assert "nothing of the sort" in mine
    if kind in ("code", "order"):
        (text,) = taught.context.store.kept_under("told:").values()
        assert json.loads(text)["why"]


@pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be proved here: {sandbox.explain()}")
def test_an_answer_from_before_its_reason_was_kept_is_still_shown(taught: Visitor, proved: Library) -> None:
    item = proved.items[kinds.of_kind(proved, "order")]
    page = taught.get(f"/items/{item.id}")
    taught.post("/answer", ticket=taught.ticket(page), **kinds.wrong(kinds.question(taught, page)))
    (kept,) = taught.context.progress.history
    taught.context.store.keep(f"told:{kept.id}", "{}")
    pack = proved.pack_of(item.id)
    page = taught.get(f"/topics/{pack.id}/{item.topic}/mistakes")
    assert f"/attempts/{kept.id}" in page
    assert "Try it again" in page


@pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be proved here: {sandbox.explain()}")
def test_an_answer_to_a_question_that_was_of_another_kind_breaks_no_page(taught: Visitor, proved: Library) -> None:
    item = proved.items[kinds.of_kind(proved, "match")]
    old = Attempt("before", item.id, 1, kinds.START, "practice", False, "a", seed=item.seed)
    taught.context.store.record(old)
    pack = proved.pack_of(item.id)
    assert f'href="/items/{item.id}?mode=' in taught.get(f"/topics/{pack.id}/{item.topic}/mistakes")
    page = taught.client.get("/attempts/before")
    assert page.status_code == 404
    assert "The question has changed since" in page.text
