"""When the database is away: a page that says so, what was sent kept, and an answer sent again counted once."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path

import pytest
from sqlalchemy import insert, select
from starlette.testclient import TestClient

from clearhead import sandbox
from clearhead.errors import StoreError
from clearhead.studio.app.application import create
from clearhead.studio.learner import database
from clearhead.studio.learner.tables import waits
from clearhead.studio.web.settings import Settings
from studio import postgresql
from studio.accounts.test_accounts import WORD, Learner, accounts, learner
from studio.conftest import START, Visitor
from studio.sample import library


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    """A server of these tests alone, since they stop it."""
    with postgresql.server_or_skip() as running:
        yield running


@pytest.fixture
def visitor(server: postgresql.Server, tmp_path: Path) -> Iterator[Visitor]:
    app = create(Settings(data=tmp_path, database=server.database()), library())
    app.state.context.now = lambda: START
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield Visitor(client, app.state.context)


class Away:
    """The server stopped for the length of a block."""

    def __init__(self, server: postgresql.Server) -> None:
        self._server = server

    def __enter__(self) -> None:
        self._server.control("-m", "immediate", "stop")

    def __exit__(self, *_: object) -> None:
        self._server.control("start")


def fields(page: str) -> dict[str, str]:
    """What the page's form sends."""
    found = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page))
    found |= dict(re.findall(r'<textarea[^>]* name="([^"]+)"[^>]*>\n(.*?)</textarea>', page, re.S))
    return {name: unescape(value) for name, value in found.items()}


@pytest.mark.slow
def test_connections_of_a_server_that_was_restarted_are_opened_anew(
    visitor: Visitor, server: postgresql.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "IDLE", 0.0)
    pool = visitor.context.store.database.engine
    with pool.connect(), pool.connect():
        pass
    with Away(server):
        pass
    with ThreadPoolExecutor(2) as threads:
        assert all(threads.map(lambda _: visitor.context.store.kept("none") == "", range(8)))
    visitor.context.store.keep("a", "b")
    assert visitor.context.store.kept("a") == "b"


@pytest.mark.slow
def test_a_transaction_is_all_or_nothing(visitor: Visitor) -> None:
    """Connections commit each statement unless they write."""
    kept = visitor.context.store.database
    row = {"key": "a", "failures": 1, "last": 0.0}
    with pytest.raises(StoreError), kept.writing() as connection:
        connection.execute(insert(waits), [row, row])
    with kept.autocommit() as connection:
        assert connection.execute(select(waits)).all() == []
        assert connection.exec_driver_sql("show transaction_isolation").scalar_one() == "read committed"


@pytest.mark.slow
def test_an_answer_is_kept_in_the_page_and_counts_once(visitor: Visitor, server: postgresql.Server) -> None:
    page = visitor.get("/items/scale-of-logits")
    sent = {"csrf": visitor.token(), "ticket": visitor.ticket(page), "response": "a", "sure": "fairly"}
    with Away(server):
        for address in ("/", "/progress", "/items/scale-of-logits", "/search?q=mask"):
            away = visitor.client.get(address)
            assert away.status_code == 503, address
            assert int(away.headers["retry-after"]) > 0
            assert "The database is not available" in away.text
        refused = visitor.client.post("/answer", data=sent)
        assert refused.status_code == 503
        again = fields(refused.text)
        assert again == sent | {"csrf": again["csrf"]}
        assert 'action="/answer"' in refused.text
        assert visitor.client.get("/", headers={"accept": "application/json"}).json()["error"]
        assert visitor.client.get("/static/style.css").status_code == 200
    for _ in range(2):
        assert visitor.client.post("/answer", data=again).status_code == 200
    assert len(visitor.client.get("/settings/data.json").json()["attempts"]) == 1


@pytest.mark.slow
def test_what_was_typed_comes_back_letter_for_letter(visitor: Visitor, server: postgresql.Server) -> None:
    text = 'A <b>"long" note</b> & more,\nin two lines, with an é and a trailing space \n\n' + "x" * 60
    sent = {"csrf": visitor.token(), "item": "scale-of-logits", "text": text}
    with Away(server):
        again = fields(visitor.client.post("/notes", data=sent).text)
    assert again["text"] == text
    assert visitor.client.post("/notes", data=again).status_code in (200, 303)
    assert visitor.client.get("/settings/data.json").json()["notes"]["scale-of-logits"].split() == text.split()


@pytest.mark.slow
def test_a_shared_studio_says_nothing_of_its_server_and_repeats_no_password(
    server: postgresql.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "must_confine", lambda: None)
    url = server.database()
    app = create(Settings(data=tmp_path, host="0.0.0.0", url="http://studio.example", database=url), library())
    with TestClient(app, base_url="http://studio.example", raise_server_exceptions=False) as client:
        ada = learner(client, "ada")
        token = ada.token()
        with Away(server):
            home = ada.client.get("/", headers={"accept": "text/html"})
            assert home.status_code == 503
            assert "comes back by itself" in home.text
            assert "postgres" not in home.text.lower()
            form = {"csrf": token, "name": "ada", "password": WORD}
            refused = ada.client.post("/login", data=form)
            assert refused.status_code == 503
            assert WORD not in refused.text
            assert "Go back" in refused.text
        assert ada.client.get("/progress").status_code == 200
        assert accounts(client).check("ada", WORD)
        Learner(client).log_in("ada")
