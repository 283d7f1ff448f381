"""Every POST of a form redirects to a page that a GET shows again, so that Back and reload send nothing twice."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from clearhead import sandbox
from clearhead.studio.app.application import create
from clearhead.studio.library.library import Library, fill
from clearhead.studio.web import saved_forms
from clearhead.studio.web.settings import Settings
from studio import sample
from studio.conftest import Visitor
from studio.learn.test_pages import TOPIC
from studio.practice.test_kinds import PACK, of_kind, question, right, wrong

# What scripts send and read with fetch: they answer with data, and no browser shows them as a page.
DATA = {
    "/programs/draft",
    "/lens/read", "/lens/picture", "/lens/trust", "/offline/attempts",
    "/lens/write", "/lens/write/rows", "/lens/write/table", "/lens/write/heads", "/lens/write/why",
}  # fmt: skip
BROWSER = {"accept": "text/html,application/xhtml+xml"}
SCRIPT = {"x-sent-by": "script"}  # of static/sending.js, which is told where to go instead of being sent there
FORMS: dict[str, dict[str, str]] = {
    "/answer": {"response": "a"},
    "/help": {"hint": "true"},
    "/undo": {"attempt": "none"},
    "/notes": {"item": "scale-of-logits", "text": "mine"},
    "/settings": {"theme": "dark", "clock": "off"},
    "/settings/start-over": {},
    "/topics/{pack_id}/{topic_id}/try": {"item": "scale-of-logits"},
    "/topics/{pack_id}/{topic_id}/{mode}/run": {"place": "0"},
    "/programs/run": {"program": "print(1)"},
    "/project": {"text": "a b", "changed": "a b", "token": "a", "predicted": "b"},
    "/sessions/{kind}": {},
    "/login": {"name": "ada", "password": "wrong"},
    "/logout": {},
    "/settings/password": {"current": "wrong", "password": "short", "again": "other"},
    "/token": {"token": "wrong"},
    "/join/{token}": {"password": "short", "again": "other"},
}


@pytest.fixture(params=[{}, {"host": "0.0.0.0"}, {"token": "right"}], ids=["local", "shared", "token"])
def client(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(sandbox, "must_confine", lambda: None)
    settings = Settings(data=tmp_path, **request.param)
    with TestClient(create(settings, sample.library()), base_url="http://127.0.0.1") as client:
        yield client


def posts(client: TestClient) -> set[str]:
    routes = [one for one in client.app.routes if isinstance(one, Route)]  # type: ignore[attr-defined]
    included = client.app.openapi()["paths"].items()  # type: ignore[attr-defined]
    return {one.path for one in routes if "POST" in (one.methods or ())} | {
        path for path, ways in included if "post" in ways
    }


@pytest.mark.slow
def test_every_post_is_a_form_that_redirects_or_data_for_a_script(client: TestClient) -> None:
    settings = client.app.state.context.settings  # type: ignore[attr-defined]
    shared = settings.shared
    absent = {"/token"} if shared else {"/login", "/logout", "/join/{token}", "/settings/password"}
    absent |= set() if settings.token else {"/token"}
    assert posts(client) == set(FORMS) - absent | DATA
    if settings.token:
        client.get(f"/?token={settings.token}")
    token = re.search(r'<meta name="csrf" content="([^"]+)"', client.get("/login" if shared else "/").text)
    assert token
    ticket = (
        {}
        if shared
        else {"ticket": Visitor(client, client.app.state.context).ticket(client.get("/items/scale-of-logits").text)}
    )  # type: ignore[attr-defined]
    for path in posts(client) - DATA:
        address = (
            path.replace("{pack_id}", "attention")
            .replace("{topic_id}", "one-head")
            .replace("{token}", "none")
            .replace("{kind}", "five")
        )
        good = {"csrf": token[1], **ticket, **FORMS[path]}
        for fields in (good, {}, {"csrf": token[1]}, {**good, "theme": "pink", "ticket": "x", "item": "none"}):
            answer = client.post(address, data=fields, headers=BROWSER, follow_redirects=False)
            assert answer.status_code == 303, (path, fields, answer.status_code)
            shown = client.get(answer.headers["location"], headers=BROWSER)
            assert shown.headers["content-type"].startswith("text/html"), path
            by_script = client.post(address, data=fields, headers=BROWSER | SCRIPT, follow_redirects=False)
            assert (by_script.status_code, by_script.content) == (204, b""), path
            assert by_script.headers["location"].startswith("/"), path


def test_a_refusal_can_be_shown_again_and_says_its_status(visitor: Visitor) -> None:
    fields = {"csrf": visitor.token(), "theme": "pink", "clock": "off"}
    answer = visitor.client.post("/settings", data=fields, headers=BROWSER)
    assert answer.status_code == 422
    assert "not pink" in answer.text
    assert visitor.client.get(str(answer.url)).text.count("not pink") == 1
    assert visitor.client.get("/refused?said=made-up").status_code == 404


@pytest.mark.slow
def test_a_question_sent_incomplete_is_shown_again_by_its_address(visitor: Visitor) -> None:
    page = visitor.get("/items/scale-of-logits")
    answer = visitor.client.post(
        "/answer", data={"csrf": visitor.token(), "ticket": visitor.ticket(page), "sure": "unsure"}
    )
    assert answer.status_code == 422
    again = visitor.client.get(str(answer.url)).text
    assert "Choose an option first." in again
    assert re.search(r'value="unsure" checked', again)
    visitor.post("/answer", ticket=visitor.ticket(again), response="a")
    assert "You had answered this question already" in visitor.client.get(str(answer.url)).text
    assert visitor.context.store.kept_under("form:") == {}


def test_an_answer_to_an_answered_question_is_not_taken_and_that_is_reported(visitor: Visitor) -> None:
    page = visitor.get("/items/scale-of-logits")
    first = visitor.post("/answer", ticket=visitor.ticket(page), response="a")
    again = visitor.post("/answer", ticket=visitor.ticket(page), response="b")
    words = "You had answered this question already"
    assert words in again
    assert words not in first
    assert len(visitor.context.progress.history) == 1
    card = visitor.ticket(visitor.get("/items/what-is-lse"))
    assert "Saved." in visitor.post("/answer", ticket=card, response="good")
    assert "graded already" in visitor.post("/answer", ticket=card, response="again")


def test_back_shows_what_was_typed_in_every_browser(client: TestClient) -> None:
    for hints in ({}, {"sec-ch-ua": '"Chromium";v="140"'}):
        assert client.get("http://127.0.0.1/", headers=hints).headers["cache-control"] == "private, no-cache"


def test_only_the_latest_of_what_was_sent_is_kept_and_none_of_it_for_ever(visitor: Visitor) -> None:
    for i in range(saved_forms.LATEST + 5):
        visitor.later(seconds=1)
        saved_forms.keep(visitor.context, "run", str(i), {"x": i})
    assert len(visitor.context.store.kept_under("run:")) == saved_forms.LATEST
    assert saved_forms.get(visitor.context, "run", "0") is None
    assert saved_forms.get(visitor.context, "run", str(saved_forms.LATEST + 4))
    saved_forms.forget_all(visitor.context.store)
    assert visitor.context.store.kept_under("run:") == {}


@pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be run here: {sandbox.explain()}")
def test_a_run_has_an_address_that_shows_it_again(visitor: Visitor) -> None:
    fields = {"csrf": visitor.token(), "item": "scale-of-logits", "program": "print(6 * 7)\n1 / 0", "prediction": "41"}
    answer = visitor.client.post(f"{TOPIC}/try", data=fields)
    assert "&run=" in str(answer.url)
    assert "ZeroDivisionError" in answer.text
    before = len(visitor.context.store.kept_under("run:"))
    again = visitor.client.get(str(answer.url)).text
    assert "Not what you said" in again
    assert "print(6 * 7)" in again
    assert len(visitor.context.store.kept_under("run:")) == before
    assert "no longer kept" in visitor.get(f"{TOPIC}/try?item=scale-of-logits&run=none")


PROVED = pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be proved here: {sandbox.explain()}")


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return fill([PACK], tmp_path_factory.mktemp("proofs"))


@pytest.fixture
def taught(tmp_path: Path, every_kind: Library) -> Iterator[Visitor]:
    app = create(Settings(data=tmp_path), every_kind)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield Visitor(client, app.state.context)


@PROVED
def test_an_explanation_is_compared_at_an_address_of_its_own(taught: Visitor, every_kind: Library) -> None:
    page = taught.get(f"/items/{of_kind(every_kind, 'explain')}")
    fields = {"csrf": taught.token(), "ticket": taught.ticket(page), "text": "Words of <mine>."}
    compared = taught.client.post("/answer", data=fields)
    assert str(compared.url).startswith("http://127.0.0.1/question?ticket=")
    assert "Words of &lt;mine&gt;." in taught.client.get(str(compared.url)).text
    assert not taught.context.progress.history


@PROVED
def test_build_goes_on_with_ones_own_program_and_starts_over_when_asked(taught: Visitor, every_kind: Library) -> None:
    item = of_kind(every_kind, "code")
    for fields in (wrong, right):
        page = taught.get(f"/items/{item}?mode=build&fresh=true")
        program = str(fields(question(taught, page))["program"]) + "\n# mine"
        taught.post("/answer", ticket=taught.ticket(page), program=program)
        for address in (f"/items/{item}?mode=build", "/topics/good/basics/build?more=true"):
            assert "# mine" in taught.get(address)
    assert "# mine" not in taught.get(f"/items/{item}?mode=build&fresh=true")
    assert "# mine" not in taught.get(f"/items/{item}?mode=practice")


@pytest.mark.parametrize("client", [{"host": "0.0.0.0"}], indirect=True, ids=["shared"])
def test_log_out_forgets_what_was_sent(client: TestClient) -> None:
    token = client.app.state.accounts.add("ada")  # type: ignore[attr-defined]
    ada = Visitor(client, client.app.state.context)  # type: ignore[attr-defined]

    def csrf() -> str:
        found = re.search(r'<meta name="csrf" content="([^"]+)"', client.get("/login").text)
        assert found
        return found[1]

    client.post(f"/join/{token}", data={"csrf": csrf(), "password": "a long word", "again": "a long word"})
    page = client.get("/items/scale-of-logits").text
    client.post("/help", data={"csrf": csrf(), "ticket": ada.ticket(page), "hint": "true"})
    store = client.app.state.context.at(1).store  # type: ignore[attr-defined]
    assert store.kept_under("form:")
    client.post("/logout", data={"csrf": csrf()})
    assert not store.kept_under("form:")
