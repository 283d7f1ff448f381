"""Who may talk to the studio, and what its pages may do."""

import pytest

from clearhead.errors import OptionError
from clearhead.studio.security import HEADERS, MAX_BODY
from clearhead.studio.settings import Settings
from studio.conftest import Visitor

ADDRESSES = [
    "/",
    "/topics/attention/one-head",
    "/nope",
    "/static/style.css",
    "/static/none.css",
    "/items/scale-of-logits",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_response_carries_the_headers(visitor: Visitor, address: str) -> None:
    headers = visitor.client.get(address).headers
    for name, value in HEADERS.items():
        assert headers[name] == value
    assert "'unsafe" not in headers["content-security-policy"]
    assert "server" not in headers


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_page_has_an_inline_script_or_style(visitor: Visitor, address: str) -> None:
    page = visitor.client.get(address).text
    assert " onclick=" not in page
    assert " style=" not in page
    assert page.count("<script") == page.count('<script type="module" src="/')
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


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
    assert not visitor.desk.progress.history


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
