"""A shared studio: who may log in, how, and that learners see only their own data."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from clearhead import sandbox
from clearhead.cli import app as cli
from clearhead.errors import OptionError, SandboxError
from clearhead.studio.accounts import names
from clearhead.studio.accounts.access import safe
from clearhead.studio.accounts.accounts import INVITED, Accounts
from clearhead.studio.accounts.users import remember_address
from clearhead.studio.app.application import create
from clearhead.studio.learner.database import Database
from clearhead.studio.learner.store import Store
from clearhead.studio.web.settings import Settings
from studio.conftest import ON_BOTH, START, Visitor
from studio.learn.test_pages import answer
from studio.sample import library

WORD = "correct horse battery"


@pytest.fixture
def shared(tmp_path: Path, database: str | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(sandbox, "must_confine", lambda: None)
    app = create(Settings(data=tmp_path, host="0.0.0.0", url="http://studio.example", database=database), library())
    app.state.context.now = lambda: START
    with TestClient(app, base_url="http://studio.example") as client:
        yield client


def accounts(client: TestClient) -> Accounts:
    found: Accounts = client.app.state.accounts  # type: ignore[attr-defined]
    return found


class Learner(Visitor):
    """Somebody with a browser of his own."""

    def __init__(self, client: TestClient) -> None:
        super().__init__(TestClient(client.app, base_url="http://studio.example"), client.app.state.context)  # type: ignore[attr-defined]

    def token(self) -> str:
        found = re.search(r'<meta name="csrf" content="([^"]+)"', self.client.get("/login").text)
        assert found
        return found[1]

    def log_in(self, name: str, password: str = WORD, status: int = 200, **more: object) -> str:
        return self.post("/login", status, name=name, password=password, **more)


def learner(client: TestClient, name: str) -> Learner:
    new = Learner(client)
    new.post(f"/join/{accounts(client).add(name)}", password=WORD, again=WORD)
    return new


@pytest.mark.slow
@pytest.mark.parametrize("database", ON_BOTH, indirect=True)
def test_each_learner_sees_only_his_own(shared: TestClient) -> None:
    ada, bob = learner(shared, "ada"), learner(shared, "bob")
    answer(ada, ada.get("/items/scale-of-logits"), "16.0")
    ada.post("/notes", item="scale-of-logits", text="Mind the root.")
    ada.post("/settings", theme="dark", clock="off")
    (kept,) = ada.client.get("/settings/data.json").json()["attempts"]
    assert "Welcome back" in ada.get("/")
    assert "Turn the query" in bob.get("/")
    assert bob.client.get("/settings/data.json").json() == {"format": 1, "attempts": [], "notes": {}}
    bob.get(f"/attempts/{kept['id']}", 404)
    bob.post("/undo", 404, attempt=kept["id"])
    assert 'dark.css" media="all"' not in bob.get("/")
    bob.post("/settings/start-over")
    assert "You have 1 answer." in ada.get("/settings")
    assert "in the database of this studio" in ada.get("/settings")
    assert str(shared.app.state.context.settings.data) not in ada.get("/settings")  # type: ignore[attr-defined]
    assert "Mind the root." in ada.get(f"/attempts/{kept['id']}")


def test_who_is_logged_in_is_not_asked_to_log_in(shared: TestClient) -> None:
    ada = learner(shared, "ada")
    for address, where in (
        ("/login", "/"),
        ("/login?next=/progress", "/progress"),
        ("/login?next=//evil.example", "/"),
    ):
        reply = ada.client.get(address, follow_redirects=False)
        assert (reply.status_code, reply.headers.get("location")) == (303, where), address
    assert "The name or the password is wrong." in ada.log_in("bob", "wrong", 401)
    assert "Welcome" not in ada.get("/login?next=/progress")


def pages(client: TestClient) -> Iterator[str]:
    """An address of every route one can get."""
    there = {"pack_id": "attention", "topic_id": "one-head"}
    for path, ways in client.app.openapi()["paths"].items():  # type: ignore[attr-defined]
        if "get" in ways:
            yield re.sub(r"\{(\w+)\}", lambda name: there.get(name[1], "x"), path)


@pytest.mark.slow
def test_nobody_sees_anything_without_logging_in(shared: TestClient) -> None:
    open_ = ("/login", "/join/x", "/offline", "/service-worker.js", "/manifest.webmanifest", "/refused", "/views/")
    addresses = list(pages(shared))
    assert len(addresses) > 30
    for address in addresses:
        if address not in open_ and not address.startswith(open_[-1]):
            asked = shared.get(address, follow_redirects=False, headers={"accept": "text/html"})
            assert asked.status_code == 303, address
            assert asked.headers["location"].startswith("/login?next=%2F")
            assert shared.get(address, headers={"accept": "application/json"}).status_code == 401, address
    assert shared.post("/answer", data={"ticket": "x"}).status_code == 401
    assert shared.get("/static/style.css").status_code == 200


def test_a_page_before_the_log_in_links_to_nothing_behind_it(shared: TestClient) -> None:
    """From an invitation, such a link led to the log-in, before there was a password to give."""
    for address in ("/login", f"/join/{accounts(shared).add('ada')}"):
        page = shared.get(address).text
        assert re.findall(r'href="(/(?!static/)[^"]*)"', page) == ["/manifest.webmanifest", "/"], address


@pytest.mark.slow
def test_one_is_led_back_to_where_one_was(shared: TestClient) -> None:
    learner(shared, "ada")
    back = Learner(shared)
    page = back.client.get("/topics/attention/one-head/read?x=1", headers={"accept": "text/html"})
    assert 'name="next" value="/topics/attention/one-head/read?x=1"' in page.text
    assert "One head, step by step" in back.log_in("ada", next="/topics/attention/one-head/read?x=1")


@pytest.mark.parametrize(
    "where", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:x", "", "/a\nb"]
)
def test_one_is_led_nowhere_else(where: str) -> None:
    assert safe(where) == "/"


@pytest.mark.slow
def test_an_invitation_works_once_and_not_for_ever(shared: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    token = accounts(shared).add("ada")
    ada = Learner(shared)
    assert "Welcome, ada" in ada.get(f"/join/{token}")
    assert "too short" in ada.post(f"/join/{token}", 422, password=WORD[:9], again=WORD[:9])
    assert "not the same" in ada.post(f"/join/{token}", 422, password=WORD, again=WORD + "r")
    ada.post(f"/join/{token}", password=WORD, again=WORD)
    again = ada.get(f"/join/{token}", 404)  # as a learner does who comes back by the link
    assert "was used or is too old" in again
    assert "If you have chosen a password, log in with it" in again
    ada.get("/join/forged", 404)
    old = accounts(shared).reset("ada")
    now = time.time()
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + INVITED + 9)
    ada.get(f"/join/{old}", 404)


@pytest.mark.slow
def test_a_new_password_and_a_removal_end_every_session(shared: TestClient) -> None:
    ada = learner(shared, "ada")
    elsewhere = Learner(shared)
    elsewhere.log_in("ada")
    elsewhere.post(f"/join/{accounts(shared).reset('ada')}", password=WORD + "2", again=WORD + "2")
    assert "Log in" in ada.get("/login")
    assert ada.client.get("/progress").status_code == 401
    assert elsewhere.client.get("/progress").status_code == 200
    accounts(shared).remove("ada")
    assert elsewhere.client.get("/progress").status_code == 401
    elsewhere.log_in("ada", WORD + "2", 401)
    with pytest.raises(OptionError, match="already has an account"):
        accounts(shared).add("ada")


@pytest.mark.slow
def test_logging_out_forgets_the_session_and_the_device(shared: TestClient) -> None:
    ada = learner(shared, "ada")
    assert "Log out" in ada.get("/")
    out = ada.client.post("/logout", data={"csrf": ada.token()}, follow_redirects=False)
    assert out.headers["clear-site-data"] == '"cache", "storage"'
    assert ada.client.get("/progress").status_code == 401


@pytest.mark.slow
def test_the_session_is_for_no_script_and_over_https_for_https_alone(shared: TestClient) -> None:
    for scheme in ("http", "https"):
        ada = Learner(shared)
        ada.client.base_url = f"{scheme}://studio.example"
        token = accounts(shared).add(scheme)
        sent = ada.client.post(
            f"/join/{token}", data={"csrf": ada.token(), "password": WORD, "again": WORD}, follow_redirects=False
        )
        cookie = next(one for one in sent.headers.get_list("set-cookie") if "session" in one).lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert ("secure" in cookie) is (scheme == "https")


@pytest.mark.slow
def test_passwords_are_kept_as_argon2_hashes(shared: TestClient) -> None:
    learner(shared, "ada")
    (ada,) = accounts(shared).all()
    assert ada.password.startswith("$argon2id$")
    assert WORD not in ada.password


@pytest.mark.slow
def test_nobody_opens_a_folder_of_the_server_by_the_lens(shared: TestClient) -> None:
    ada = learner(shared, "ada")
    headers = {"x-csrf-token": ada.token()}
    for query in ("model=/etc", "model=/nope", "second=/etc", "model=induction&second=/nope", "model=bert-base-cased"):
        assert "its own models only" in ada.get(f"/lens/data?text=x&{query}", 422), query
        assert "its own models only" in ada.get(f"/lens/answer?question={{}}&text=x&{query}", 422), query
        assert "its own models only" in ada.get(f"/lens?plain=1&text=x&{query}"), query
    wanted = '{"text": "x", "model": "/etc"}'
    for kind in ("application/json", "application/vnd.api+json"):
        read = ada.client.post("/lens/read?model=induction", content=wanted, headers={**headers, "content-type": kind})
        assert "its own models only" in read.text, kind
    for path in ("/lens/write", "/lens/write/rows", "/lens/write/table", "/lens/write/heads", "/lens/write/why"):
        body = {"prompt": "x", "model": "/etc", "layer": 0, "head": 0, "place": 1, "key": 0}
        assert "its own models only" in ada.client.post(path, json=body, headers=headers).text, path
    assert "its own models only" in ada.get("/lens/write?plain=1&prompt=x&model=/etc")
    assert ada.client.post("/lens/trust", json={"model": "x"}, headers=headers).status_code == 422


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_it_is_not_shared_where_programs_cannot_be_confined(
    tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clearhead.sandbox.backends.available", lambda: ())
    with pytest.raises(SandboxError, match="cannot be confined"):
        create(Settings(data=tmp_path, host=host), library())
    create(Settings(data=tmp_path), library())


@pytest.mark.slow
def test_the_command_invites_lists_resets_and_removes(tmp_path: Path) -> None:
    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(cli, ["studio", "user", *words, "--data", str(tmp_path)])
        assert done.exit_code == code, done.output
        return done.output

    assert run("list") == "there are no learners yet; `clearhead studio user add NAME` adds one\n"
    link = re.search(r"/join/(\S+)", run("add", "ada"))
    assert link
    assert run("list") == "ada  invited\n"
    people = Accounts(Database(tmp_path), (tmp_path / "secret").read_text())
    account = people.invited(link[1])
    assert account
    people.join(account, WORD)
    assert run("list") == "ada  active\n"
    assert "/join/" in run("reset", "ada")
    run("remove", "ada")
    assert run("list") == "ada  removed\n"
    assert "already has an account" in run("add", "ada", code=2)
    assert "there are: ada" in run("remove", "bob", code=2)
    assert "cannot be a name" in run("add", "<b>", code=2)


@pytest.mark.slow
def test_an_invitation_is_a_whole_link_where_the_address_is_known(tmp_path: Path) -> None:
    def invited(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(cli, ["studio", "user", *words, "--data", str(tmp_path)])
        assert done.exit_code == code, done.output
        return done.output

    assert "with your studio's address before it, as in http://192.168.1.7:8765. It works once, within" in invited(
        "add", "ada"
    )
    link = "days:\nhttps://studio.example/join/"
    assert link in invited("reset", "ada", "--url", "https://studio.example/")
    store = Store(Database(tmp_path))
    remember_address(store, Settings(host="192.168.1.7").invites_to(8770))
    assert "days:\nhttp://192.168.1.7:8770/join/" in invited("reset", "ada")
    assert link in invited("add", "bob", "--url", "https://studio.example")
    remember_address(store, Settings(host="0.0.0.0").invites_to(8770))  # of no use to anybody else
    assert "before it" in invited("reset", "ada")
    assert "as in https://studio.example" in invited("reset", "ada", "--url", "studio.example", code=2)
    store.close()


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({}, "http://127.0.0.1:9"),
        ({"host": "::1"}, "http://[::1]:9"),
        ({"host": "0.0.0.0", "url": "https://a.example//"}, "https://a.example"),
        ({"certificate": Path("c"), "key": Path("k"), "host": "b.example"}, "https://b.example:9"),
    ],
)
def test_the_address_is_the_one_a_browser_takes(given: dict[str, object], address: str) -> None:
    settings = Settings(**given)  # type: ignore[arg-type]
    assert settings.address(9) == settings.invites_to(9) == address


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="both --certificate and --key"):
        Settings(certificate=tmp_path / "c.pem")


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Callable[[str], str]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, value: str) -> str:
        self.calls += 1
        return self.function(value)


@pytest.mark.parametrize("database", ON_BOTH, indirect=True)
def test_a_log_in_reads_only_accounts_that_are_new(
    tmp_path: Path, database: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among a thousand accounts the names of all of them took longer than the rest of the request."""
    opened = Database(tmp_path, database)
    here, elsewhere = Accounts(opened, "secret"), Accounts(opened, "secret")
    for number in range(7):
        here.add(f"learner {number}")
    first = here._known("Learner 0")
    assert first is not None
    monkeypatch.setattr(names, "key", counted := Counted(names.key))
    assert here._known("Learner 3") == here._named("learner 3")
    elsewhere.add("Ümit")
    elsewhere.join(elsewhere._named("Ümit"), WORD)
    counted.calls = 0
    found = here._known("ümit")
    assert found is not None
    assert counted.calls == 2, "the name that was typed and the new one"
    assert (found.name, found.state) == ("Ümit", "active"), "added and changed by another process"
    assert here._known("nobody") is None
    opened.close()
