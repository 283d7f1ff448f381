"""Who may talk to the studio, and what its pages may do."""

import re

import pytest

from clearhead.errors import OptionError
from clearhead.studio.web.security import HEADERS, MAX_BODY
from clearhead.studio.web.settings import Settings
from studio.conftest import Visitor

TOPIC = "/topics/attention/one-head"
MODES = ("read", "walk", "try", "recall", "practice", "challenge", "experiment", "test")
PAGES = [
    *(
        "/",
        "/progress",
        "/search?q=softmax",
        "/settings",
        "/review",
        "/lens",
        "/lens/write",
        "/offline",
        "/items/scale-of-logits",
        TOPIC,
    ),
    *("/next", "/map", "/interview", "/sessions/five", "/project", "/certificate", f"{TOPIC}/next"),
    *("/items/which-hold", "/items/what-is-lse", "/attempts/none", "/nope", f"{TOPIC}/mistakes"),
    *(f"{TOPIC}/{mode}" for mode in MODES),
    f"{TOPIC}/test/0b9a6a0e-6d3c-4d0e-8a57-6a3c6d3f7b11",
    f"{TOPIC}/challenge/0b9a6a0e-6d3c-4d0e-8a57-6a3c6d3f7b11",
]
WRITING = ("/lens/write", "/lens/write/rows", "/lens/write/table", "/lens/write/heads", "/lens/write/why")
LENS_DATA = ("/lens/read", "/lens/picture", "/lens/trust", *WRITING)
OTHERS = ["/static/style.css", "/static/none.css", "/manifest.webmanifest", "/service-worker.js", "/offline/cards"]
KILOBYTES = 110  # of a page with its styles and modules, before compression and pictures


@pytest.mark.parametrize("address", [*PAGES, *OTHERS, "/settings/data.json"])
def test_every_response_carries_the_headers(visitor: Visitor, address: str) -> None:
    headers = visitor.client.get(address).headers
    for name, value in HEADERS.items():
        assert headers[name] == value
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "'unsafe" not in policy
    assert "http:" not in policy
    assert "https:" not in policy
    assert "server" not in headers


def test_the_list_of_pages_leaves_none_out(visitor: Visitor) -> None:
    known = {re.sub(r"^/topics/attention/one-head", "/topics/{pack_id}/{topic_id}", one.split("?")[0]) for one in PAGES}
    known = {re.sub(r"[0-9a-f-]{36}", "{id}", one) for one in known}
    known |= {"/items/{item_id}", "/attempts/{attempt_id}", "/sessions/{kind}"}
    routes = visitor.client.app.openapi()["paths"].items()  # type: ignore[attr-defined]
    pages = {
        path for path, ways in routes if "get" in ways and "text/html" in ways["get"]["responses"]["200"]["content"]
    }
    assert len(pages) > 20
    # What the sample course has no page for; the whole course's are looked at in the browser.
    absent = {f"/topics/{{pack_id}}/{{topic_id}}/{mode}" for mode in ("why", "sheet", "build", "tour")}
    absent |= {f"/topics/{{pack_id}}/{{topic_id}}/placement{id}" for id in ("", "/{id}")}
    absent |= {"/reveal", "/attempts/{attempt_id}/head"}
    assert pages - known - absent == set()


@pytest.mark.parametrize("address", PAGES)
def test_a_page_is_light_and_asks_nobody_else(visitor: Visitor, address: str) -> None:
    page = visitor.client.get(address)
    assert " on" not in "".join(re.findall(r"<[^>]* (on[a-z]+)=", page.text))
    assert " style=" not in page.text
    assert page.text.count("<script") == page.text.count('<script type="module" src="/')
    assert "<style" not in page.text
    assert "http://" not in page.text.replace("http://www.w3.org", "")
    assert "https://" not in page.text
    total, seen = len(page.content), set[str]()
    wanted = re.findall(r'(?:href|src)="(/(?:static|views)/[^"]+\.(?:css|js))"', page.text)
    while wanted:
        if (file := wanted.pop()) not in seen:
            seen.add(file)
            content = visitor.client.get(file)
            assert content.status_code == 200, file
            total += len(content.content)
            wanted += [f"{file.rsplit('/', 1)[0]}/{name}" for name in re.findall(r'from "\./([^"]+)"', content.text)]
    assert total < KILOBYTES * 1000, f"{address} weighs {total / 1000:.0f} kB"


POSTS = (
    "/answer",
    "/help",
    "/undo",
    "/notes",
    "/settings",
    "/settings/start-over",
    "/programs/run",
    "/programs/draft",
    f"{TOPIC}/{{mode}}/run",
    "/project",
    "/sessions/{kind}",
    f"{TOPIC}/try",
    "/offline/attempts",
)


@pytest.mark.slow
@pytest.mark.parametrize("address", [*POSTS, *LENS_DATA])
def test_nothing_is_changed_by_a_request_from_elsewhere(visitor: Visitor, address: str) -> None:
    visitor.get("/")  # the browser has the cookie
    for headers in ({}, {"x-csrf-token": "forged"}, {"origin": "https://evil.example"}):
        assert visitor.client.post(address, data={"attempt": "x"}, headers=headers).status_code == 403


@pytest.mark.slow
def test_the_list_of_forms_leaves_none_out(visitor: Visitor) -> None:
    known = {one.replace(TOPIC, "/topics/{pack_id}/{topic_id}") for one in POSTS}
    routes = visitor.client.app.openapi()["paths"].items()  # type: ignore[attr-defined]
    posts = {path for path, ways in routes if ways.keys() - {"get"}}
    assert posts - known == set(LENS_DATA)


@pytest.mark.parametrize("token", [None, "", "forged", "other"])
def test_a_post_from_elsewhere_is_refused(visitor: Visitor, token: str | None) -> None:
    ticket = visitor.ticket(visitor.get("/items/scale-of-logits"))
    fields = {"ticket": ticket, "response": "a"} | ({} if token is None else {"csrf": token})
    if token == "other":  # noqa: S105 — a token this studio signed, for another browser
        fields["csrf"] = visitor.token()
        visitor.client.cookies.clear()
    answer = visitor.client.post("/answer", data=fields)
    assert answer.status_code == 403
    assert "Reload the page" in answer.text
    assert not visitor.context.progress.history


def test_the_token_may_come_in_a_header(visitor: Visitor) -> None:
    ticket, token = visitor.ticket(visitor.get("/items/scale-of-logits")), visitor.token()
    answer = visitor.client.post("/answer", data={"ticket": ticket, "response": "a"}, headers={"x-csrf-token": token})
    assert answer.status_code == 200


def test_the_cookie_is_for_this_site_and_no_script(visitor: Visitor) -> None:
    cookie = visitor.client.get("/").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_another_host_name_is_refused(visitor: Visitor) -> None:
    assert visitor.client.get("/", headers={"host": "evil.example"}).status_code == 400
    assert visitor.client.get("/", headers={"host": "localhost:8765"}).status_code == 200


def test_a_body_past_the_limit_is_refused(visitor: Visitor) -> None:
    page = visitor.get("/items/scale-of-logits")
    fields = {"csrf": visitor.token(), "ticket": visitor.ticket(page), "response": "x" * MAX_BODY}
    answer = visitor.client.post("/answer", data=fields)
    assert answer.status_code == 413
    assert "1 MiB" in answer.text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_another_address_is_listened_on_only_with_accounts(host: str) -> None:
    assert not Settings().shared
    assert Settings(host=host).shared
    assert Settings(accounts=True).shared


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(OptionError, match="0 to 65535"):
        Settings(port=port)


def test_a_ticket_cannot_be_changed(visitor: Visitor) -> None:
    ticket = visitor.ticket(visitor.get("/items/scale-of-logits"))
    visitor.post("/answer", status=400, ticket=ticket[:-4] + "AAAA", response="a")
    visitor.post("/answer", status=400, response="a")


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_form_instead_of_a_picture_is_no_fault(visitor: Visitor, kind: str) -> None:
    token = visitor.token()
    part = f'--x\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n{token}\r\n--x--\r\n'
    body = part if "boundary" in kind else f"csrf={token}"
    answer = visitor.client.post("/lens/picture", content=body, headers={"content-type": kind})
    assert answer.status_code == 422
    assert "choose the file again" in answer.json()["error"]


@pytest.mark.parametrize("name", ["a" * 300, "9" * 5000, "%00", "none"])
def test_a_view_that_is_not_there_is_a_404(visitor: Visitor, name: str) -> None:
    visitor.get(f"/views/{name}.js", status=404)
    visitor.get("/views/attention.js")
