"""Who may use the studio: the token of a studio for one person, log-in on every route of a shared one, host names."""

import asyncio
import io
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from urllib.parse import unquote

import httpx2
import pytest
from fastapi import FastAPI
from rich.console import Console
from starlette.testclient import TestClient

import loops
from clearhead import sandbox
from clearhead.studio.accounts import access
from clearhead.studio.app import serving
from clearhead.studio.app.application import create
from clearhead.studio.learner.database import Database
from clearhead.studio.lens.readings import Readings
from clearhead.studio.library.library import _alone
from clearhead.studio.web import route_marks
from clearhead.studio.web.context import secret_in
from clearhead.studio.web.locks import Locks
from clearhead.studio.web.settings import Settings
from studio.sample import library

OPEN = {
    "login", "log_in", "invitation", "join", "show_token", "page of offline", "service_worker", "manifest", "view",
    "style", "refused",
}  # fmt: skip
TOKEN = "a-token-of-this-start"  # noqa: S105 — of these tests


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "must_confine", lambda: None)
        settings = Settings(data=tmp_path_factory.mktemp("shared"), host="0.0.0.0", url="http://studio.example")
        yield create(settings, library())


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return create(Settings(data=tmp_path_factory.mktemp("single"), token=TOKEN), library())


@pytest.fixture(scope="module", params=["shared", "single"])
def studio(request: pytest.FixtureRequest) -> FastAPI:
    app: FastAPI = request.getfixturevalue(request.param)
    return app


def routes(app: FastAPI) -> Iterator[tuple[str, str, bool]]:
    """Each method and address of each route, and whether it is open to all."""
    values = {"pack_id": "attention", "topic_id": "one-head", "mode": "read", "name": "map"}
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            operation = methods[method]["operationId"]
            yield method.upper(), re.sub(r"\{(\w+)\}", lambda part: values.get(part[1], "x"), path), operation


def request_with(app: FastAPI, method: str, path: str, *hosts: bytes) -> int:
    """The status of a request whose Host is what no client would send. Straight to the application."""
    sent: list[int] = []
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, object]:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            sent.append(int(message["status"]))  # type: ignore[call-overload]

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 9), "headers": [(b"host", host) for host in hosts],
    }  # fmt: skip
    loops.run(app(scope, receive, send))  # type: ignore[arg-type]
    return sent[0]


def own_host(app: FastAPI) -> bytes:
    return b"studio.example" if app.state.context.settings.shared else b"127.0.0.1:8765"


def test_the_routes_open_to_all_are_these(shared: FastAPI, single: FastAPI) -> None:
    names = {f"{one.__name__} of offline" if one.__name__ == "page" else one.__name__ for one in route_marks._open}
    assert names == OPEN


@pytest.mark.slow
def test_every_other_route_asks_who_it_is(studio: FastAPI) -> None:
    asked = 0
    for method, address, operation in routes(studio):
        status = request_with(studio, method, address, own_host(studio))
        is_open = any(operation.startswith(f"{name.split()[0]}_") for name in OPEN if name != "page of offline")
        if is_open or address == "/offline":
            assert status != 401, address
        else:
            assert status == 401, f"{method} {address}"
            asked += 1
    assert asked > 40


@pytest.mark.parametrize(
    "host",
    [
        b"x/login?", b"studio.example/login?", b"127.0.0.1/login?", b"127.0.0.1#", b"a@127.0.0.1/offline?", b"evil.example",
        b"127.0.0.1:8765/join/x", b"127.0.0.1:8765@evil.example", b"localhost.evil.example", b" 127.0.0.1", b"[::1",
        b"127.0.0.1:99999999", b"studio.example:80:80", "127.0.0.1\u00e9".encode("latin-1"), b"127.0.0.1\\login",
    ],
)  # fmt: skip
def test_no_host_header_opens_a_route(studio: FastAPI, host: bytes) -> None:
    for method, address, _ in routes(studio):
        assert request_with(studio, method, address, host) == 400, address


def test_two_host_headers_are_refused(studio: FastAPI) -> None:
    assert request_with(studio, "GET", "/login", own_host(studio), b"localhost") == 400
    assert request_with(studio, "GET", "/login") == 400


@pytest.mark.parametrize(
    "host", [b"studio.example", b"STUDIO.example:443", b"localhost:8765", b"192.168.1.7", b"[::1]:80"]
)
def test_names_and_addresses_of_a_shared_studio_pass(shared: FastAPI, host: bytes) -> None:
    assert request_with(shared, "GET", "/login", host) == 200


def test_a_studio_on_one_address_takes_no_other(tmp_path: Path) -> None:
    app = create(Settings(data=tmp_path), library())
    assert request_with(app, "GET", "/offline", b"192.168.1.7") == 400
    for host in (b"127.0.0.1", b"localhost:1", b"[::1]:8765"):
        assert request_with(app, "GET", "/offline", host) == 200


def test_the_token_in_the_address_becomes_a_cookie(single: FastAPI) -> None:
    with TestClient(single, base_url="http://127.0.0.1", follow_redirects=False) as browser:
        refused = browser.get("/")
        assert refused.status_code == 401
        assert "Open your studio" in refused.text
        assert browser.get("/?token=wrong").status_code == 401
        assert browser.get("/?token=").status_code == 401
        shown = browser.get(f"/search?q=mask&token={TOKEN}")
        assert (shown.status_code, shown.headers["location"]) == (303, "/search?q=mask")
        cookie = shown.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert TOKEN not in cookie
        assert browser.get("/search?q=mask").status_code == 200


def test_the_token_may_be_typed(single: FastAPI) -> None:
    with TestClient(single, base_url="http://127.0.0.1") as browser:
        csrf = re.search(r'<meta name="csrf" content="([^"]+)"', browser.get("/").text)
        assert csrf
        wrong = browser.post("/token", data={"csrf": csrf[1], "token": "wrong"})
        assert wrong.status_code == 401
        assert "not the token" in wrong.text
        assert browser.post("/token", data={"csrf": csrf[1], "token": f" {TOKEN} "}).status_code == 200
        assert browser.get("/progress").status_code == 200


def test_the_cookie_outlives_a_restart_and_the_token_does_not(tmp_path: Path) -> None:
    first = create(Settings(data=tmp_path, token="first"), library())
    second = create(Settings(data=tmp_path, token="second"), library())
    with TestClient(first, base_url="http://127.0.0.1") as browser:
        browser.get("/?token=first")
        kept = dict(browser.cookies)
    with TestClient(second, base_url="http://127.0.0.1", cookies=kept) as browser:
        assert browser.get("/").status_code == 200
    with TestClient(second, base_url="http://127.0.0.1") as browser:
        assert browser.get("/?token=first").status_code == 401
    elsewhere = create(Settings(data=tmp_path / "other", token="first"), library())
    with TestClient(elsewhere, base_url="http://127.0.0.1", cookies=kept) as browser:
        assert browser.get("/").status_code == 401, "a cookie is good for the studio that gave it"


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example"])
def test_the_token_leads_nowhere_else(single: FastAPI, path: str) -> None:
    with TestClient(single, base_url="http://127.0.0.1", follow_redirects=False) as browser:
        sent = browser.get(f"http://127.0.0.1{path}?token={TOKEN}")
        assert sent.status_code == 404 or not sent.headers["location"].startswith(("//", "/\\"))


@pytest.mark.slow
@pytest.mark.parametrize("given", [None, "", "mine"])
def test_a_start_makes_a_token_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    started: list[Settings] = []

    def stop(settings: Settings, *_: object) -> FastAPI:
        started.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(serving.application, "create", stop)
    with pytest.raises(KeyboardInterrupt):
        serving.serve(Settings(data=tmp_path, port=0, token=given), browser=False)
    token = started[0].token
    assert token == given if given is not None else token and len(token) >= 32
    assert started[0].opens_at(9) == f"http://127.0.0.1:9/?token={token}" if token else started[0].opens_at(9)


@pytest.mark.parametrize("umask", [0, 0o022])
def test_what_is_kept_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        folder = tmp_path / "data"
        with TestClient(create(Settings(data=folder), library()), base_url="http://127.0.0.1") as browser:
            browser.get("/")
            files = [path for path in folder.rglob("*") if path.is_file()]
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert {path.name for path in files} >= {"clearhead.db", "clearhead.db-wal", "secret"}
            assert {
                path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in files if "proofs" not in path.parts
            } == {path.name: 0 for path in files if "proofs" not in path.parts}
    finally:
        os.umask(before)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_what_is_kept_in_a_folder_that_was_there_is_private_too(tmp_path: Path, umask: int) -> None:
    """Under umask 000 every user of the machine could replace the answers that a course is graded by."""
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    for name in ("proofs", "lens"):  # as an earlier start left them
        (data / name).mkdir()
        (data / name).chmod(0o777)
    before = os.umask(umask)
    try:
        Database(data).close()
        secret_in(data)
        Locks(data / "locks")
        readings = Readings(folder=data / "lens")
        readings.add_upload(b"a picture")
        with _alone(data / "proofs"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(data.stat().st_mode) == 0o755
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in data.iterdir()}
    assert modes == dict.fromkeys(("clearhead.db", "secret", "locks", "lens", "proofs"), 0)


FEW = ("HEAD", "OPTIONS", "get")
MORE = ("PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "GET ", "PROPFIND", "X-ANY")


@pytest.mark.slow
@pytest.mark.parametrize("methods", [FEW, pytest.param(MORE, marks=pytest.mark.stress)])
def test_no_other_method_opens_a_route(studio: FastAPI, methods: tuple[str, ...]) -> None:
    """A route serves its own methods; no other one runs it, and none answers more than that it may not."""
    addresses = {address for _, address, _ in routes(studio)} | {"/", "/static/", "/static/../", "/login/../items/x"}
    for address in sorted(addresses):
        for method in methods:
            status = request_with(studio, method, address, own_host(studio))
            assert status in (401, 403, 404, 405), f"{method} {address}: {status}"


@pytest.mark.parametrize(
    "path",
    ["/%2e%2e/settings", "//settings", "/settings/", "/settings//", "/./settings", "/static/../settings", "/views/../settings.js",
     "/views/..%2fsettings.js", "/static/%2e%2e/%2e%2e/library/library.py", "/static/....//library.py", "/SETTINGS", "/settings;/login",
     "/settings\x00", "/login/../settings", "/login%2f..%2fsettings", "http://127.0.0.1/settings", "*"],
)  # fmt: skip
def test_no_spelling_of_an_address_opens_a_page(studio: FastAPI, path: str) -> None:
    for spelled in (path, unquote(path)):
        assert request_with(studio, "GET", spelled, own_host(studio)) in (307, 401, 404), spelled


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "clearhead.db").touch(mode=0o644)
    create(Settings(data=tmp_path), library())
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755, "it may be anybody's: --data /tmp"
    assert stat.S_IMODE((tmp_path / "clearhead.db").stat().st_mode) == 0o600


def test_connections_send_small_answers_at_once() -> None:
    async def no_delay() -> int:
        with serving.take_port("127.0.0.1", 0) as listener:
            got: asyncio.Future[int] = asyncio.get_running_loop().create_future()

            def accepted(_: object, writer: asyncio.StreamWriter) -> None:
                got.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                writer.close()

            async with await asyncio.start_server(accepted, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                value = await got
                writer.close()
                await writer.wait_closed()
                return value

    assert loops.run(no_delay()) == 1


@pytest.mark.slow
def test_pages_do_not_wait_for_passwords(shared: FastAPI) -> None:
    """Forty threads serve pages; two hundred people who log in at once must not hold them all."""

    go_on = Event()

    async def at_nine() -> tuple[int, set[int]]:
        hold = [shared.state.hashing.submit(go_on.wait) for _ in range(os.cpu_count() or 1)]
        transport = httpx2.ASGITransport(app=shared)
        async with httpx2.AsyncClient(transport=transport, base_url="http://studio.example") as browser:
            page = await browser.get("/login")
            csrf = re.search(r'<meta name="csrf" content="([^"]+)"', page.text)
            assert csrf
            forms = [{"csrf": csrf[1], "name": f"n{number}", "password": "x" * 12} for number in range(60)]
            waiting = [asyncio.create_task(browser.post("/login", data=form)) for form in forms]
            other = await asyncio.wait_for(browser.get("/login"), 60)
            assert not any(task.done() for task in waiting)
            go_on.set()
            statuses = {answer.status_code for answer in await asyncio.gather(*waiting)}
            assert all(held.done() for held in hold)
            return other.status_code, statuses

    assert loops.run(at_nine()) == (200, {303})


def test_no_route_is_left_out_of_the_walk() -> None:
    source = "".join(path.read_text() for path in Path(access.__file__).parents[1].rglob("*.py"))
    assert "include_in_schema" not in source
    assert source.count(".mount(") == 1, "the static files, which are nobody's"


def test_the_cookie_is_sent_to_every_port_of_its_host(single: FastAPI) -> None:
    """Not defended: cookies know no port, so another server on this host gets the owner's. A client keeps it as a
    browser does. `__Host-` and Secure, which would need https, change nothing about ports."""
    with TestClient(single, base_url="http://127.0.0.1:8765", follow_redirects=False) as browser:
        browser.get(f"/?token={TOKEN}")
        other = browser.build_request("GET", "http://127.0.0.1:9999/")
        assert access.OWNER in other.headers.get("cookie", "")
        elsewhere = browser.build_request("GET", "http://localhost:8765/")
        assert access.OWNER not in elsewhere.headers.get("cookie", "")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"host": "0.0.0.0"}, True),
        ({"host": "192.0.2.7"}, True),
        ({"host": "127.0.0.1", "accounts": True}, False),
        ({"host": "0.0.0.0", "certificate": Path("c.pem"), "key": Path("k.pem")}, False),
    ],
)
def test_a_shared_studio_without_https_says_so(tmp_path: Path, given: dict[str, object], said: bool) -> None:
    console = Console(record=True, width=200, file=io.StringIO())
    settings = Settings(data=tmp_path, **given)  # type: ignore[arg-type]
    serving._print_accounts(settings, SimpleNamespace(all=list), console)  # type: ignore[arg-type]
    assert ("unencrypted" in console.export_text()) == said


def test_a_page_that_is_no_address_leads_home(shared: FastAPI) -> None:
    """Who has not logged in is led back to the page whose form was sent, as far as its Referer can be read."""
    with TestClient(shared, base_url="http://studio.example", follow_redirects=False) as client:
        for page in ("http://[::1", "http://[", "//", "http://studio.example]/x", "\x00"):
            sent = client.post("/answer", headers={"referer": page, "accept": "text/html"})
            assert (sent.status_code, sent.headers["location"]) == (303, "/login?next=%2F"), page
