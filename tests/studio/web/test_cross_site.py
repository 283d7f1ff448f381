"""With a GET, a page of another site can make the studio open a plain page by a link, and nothing else."""

import re

import pytest

from studio.conftest import Visitor

LINK = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "sec-fetch-user": "?1"}
FRAME = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
IMAGE = {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
SCRIPT = {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}
PLAIN = {
    "/", "/topics/{pack_id}/{topic_id}", "/topics/{pack_id}/{topic_id}/read", "/topics/{pack_id}/{topic_id}/why",
    "/topics/{pack_id}/{topic_id}/sheet", "/topics/{pack_id}/{topic_id}/mistakes", "/progress", "/search", "/settings",
    "/lens", "/lens/write", "/offline", "/map", "/project", "/certificate",
}  # fmt: skip
NAMES = {"pack_id": "attention", "topic_id": "one-head", "item_id": "which-hold", "name": "attention"}


def paths(visitor: Visitor) -> list[str]:
    """Every address that takes a GET. (Routers are included lazily: the schema lists what they hold.)"""
    return [path for path, ways in visitor.client.app.openapi()["paths"].items() if "get" in ways]  # type: ignore[attr-defined]


def address(path: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda name: NAMES.get(name[1], "0b9a6a0e-6d3c-4d0e-8a57-6a3c6d3f7b11"), path)


SITES = ["cross-site", *(pytest.param(site, marks=pytest.mark.slow) for site in ("same-site", "something-new"))]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.slow
def test_every_route(visitor: Visitor, site: str) -> None:
    """Refused before the route runs, but for a link to a plain page."""
    assert len(paths(visitor)) > 30
    assert set(paths(visitor)) > PLAIN
    for path in paths(visitor):
        for how in (LINK, FRAME, IMAGE, SCRIPT):
            status = visitor.client.get(address(path), headers={"sec-fetch-site": site, **how}).status_code
            assert (status == 403) == (path not in PLAIN or how is not LINK), (path, how, status)


@pytest.mark.parametrize("query", ["model=/etc", "text=a&plain=1", "second=untrained", "?"])
def test_a_link_with_a_query_is_offered_and_not_followed(visitor: Visitor, query: str) -> None:
    answer = visitor.client.get(f"/lens?{query}", headers={"sec-fetch-site": "cross-site", **LINK})
    assert answer.status_code == 403
    assert f'href="/lens?{query.replace("&", "&amp;")}"' in answer.text


def test_the_link_that_is_offered_stays_here(visitor: Visitor) -> None:
    answer = visitor.client.get("//x.example/%22%3E%3Cscript%3E", headers={"sec-fetch-site": "cross-site", **LINK})
    assert "<script>" not in answer.text.partition("<main")[2]
    assert 'href="//' not in answer.text


@pytest.mark.parametrize("site", ["same-origin", "none", None])
def test_our_own_pages_and_the_address_bar(visitor: Visitor, site: str | None) -> None:
    headers = {"sec-fetch-site": site} if site else {}
    for path in ("/", "/lens?text=a", "/topics/attention/one-head/practice", "/offline/cards", "/settings/data.json"):
        assert visitor.client.get(path, headers={**headers, **LINK}).status_code == 200, path


def test_style_and_scripts_are_files(visitor: Visitor) -> None:
    assert visitor.client.get("/static/style.css", headers={"sec-fetch-site": "same-origin"}).status_code == 200


FOREIGN = (
    {"origin": "http://testserver:8080"}, {"origin": "http://x.testserver"}, {"origin": "null"}, {"origin": ""}, {"origin": "http://testserver.x"},
    {"origin": "http://testserver@x.example"}, {"sec-fetch-site": "same-site"}, {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site", "origin": "http://testserver"}, {"origin": "http://[::1"}, {"origin": "http://"}, {"origin": "x"},
)  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_form_of_another_origin_is_refused_whatever_its_token(visitor: Visitor, headers: dict[str, str]) -> None:
    """As of a server on another port, which shares the cookies of this host and may set them."""
    ticket, token = visitor.ticket(visitor.get("/items/scale-of-logits")), visitor.token()
    sent = {"ticket": ticket, "response": "a", "csrf": token}
    host = visitor.client.base_url.netloc.decode()
    headers = {name: value.replace("testserver", host) for name, value in headers.items()}
    refused = visitor.client.post("/answer", data=sent, headers=headers)
    assert refused.status_code == 403
    assert "another site" in refused.text
    assert not visitor.context.progress.history
    taken = visitor.client.post("/answer", data=sent, headers={"origin": f"http://{host}"})
    assert taken.status_code == 200
