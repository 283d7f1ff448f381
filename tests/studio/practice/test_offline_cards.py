"""Offline cards: what is downloaded, what is not, and grades that count once however often they are sent."""

import json
import re

import pytest

from studio.conftest import START, Visitor
from studio.learn.test_pages import answer


def cards(visitor: Visitor) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(visitor.get("/offline/cards"))["cards"]
    return found


def send(visitor: Visitor, *graded: object, status: int = 200) -> list[str]:
    headers = {"x-csrf-token": visitor.token()}
    response = visitor.client.post("/offline/attempts", json=list(graded), headers=headers)
    assert response.status_code == status, response.text
    return list(response.json()["done"]) if status == 200 else []


def test_new_and_due_cards_come_along_without_their_answers(visitor: Visitor) -> None:
    found = cards(visitor)
    assert [card["title"] for card in found] == ["What is a weight", "What is lse"]
    assert "What softmax makes" not in json.dumps(found)
    (ticket, *_) = (card["ticket"] for card in found)
    assert "What softmax makes" in visitor.get(f"/offline/back?ticket={ticket}")
    assert "exponentials" not in visitor.get("/offline")


def test_a_card_known_for_long_stays_at_home(visitor: Visitor) -> None:
    for _ in range(4):
        ticket = cards(visitor)[0]["ticket"]
        send(visitor, {"ticket": ticket, "response": "good", "at": visitor.context.now().timestamp()})
        visitor.later(days=3)
    for card in cards(visitor):
        send(visitor, {"ticket": card["ticket"], "response": "good", "at": visitor.context.now().timestamp()})
    assert cards(visitor) == []


def test_a_grade_sent_again_counts_once(visitor: Visitor) -> None:
    ticket = cards(visitor)[0]["ticket"]
    graded = {"ticket": ticket, "response": "good", "at": START.timestamp() + 60}
    visitor.later(hours=1)
    assert send(visitor, graded, graded) == [ticket, ticket]
    assert send(visitor, {**graded, "response": "again"}) == [ticket]
    (kept,) = visitor.context.progress.history
    assert kept.correct
    assert kept.mode == "recall"
    assert (kept.at - START).total_seconds() == 60
    assert kept.seconds is None


@pytest.mark.slow
@pytest.mark.parametrize(("at", "kept_at"), [(-1e300, 0), (1e300, 3600), (0, 0)])
def test_a_wrong_clock_does_no_harm(visitor: Visitor, at: float, kept_at: int) -> None:
    ticket = cards(visitor)[0]["ticket"]
    visitor.later(hours=1)
    send(visitor, {"ticket": ticket, "response": "good", "at": at})
    assert (visitor.context.progress.history[0].at - START).total_seconds() == kept_at


def test_what_is_no_cards_ticket_is_dealt_with_and_not_kept(visitor: Visitor) -> None:
    other = visitor.ticket(visitor.get("/items/scale-of-logits"))
    assert send(visitor, *({"ticket": one, "response": "good", "at": 0} for one in ("forged", other))) == [
        "forged",
        other,
    ]
    assert not visitor.context.progress.history
    visitor.get(f"/offline/back?ticket={other}", 400)
    send(visitor, {"ticket": other, "response": "perhaps", "at": 0}, status=422)
    assert visitor.client.post("/offline/attempts", json=[]).status_code == 403


def test_a_grade_from_a_page_and_from_the_device_are_one(visitor: Visitor) -> None:
    ticket = cards(visitor)[0]["ticket"]
    visitor.post("/answer", ticket=ticket, response="again")
    send(visitor, {"ticket": ticket, "response": "good", "at": START.timestamp()})
    assert [one.correct for one in visitor.context.progress.history] == [False]
    answer(visitor, visitor.get("/items/scale-of-logits"), "4.0")


@pytest.mark.slow
def test_it_can_be_installed(visitor: Visitor) -> None:
    page = visitor.get("/")
    assert '<link rel="manifest" href="/manifest.webmanifest">' in page
    manifest = visitor.client.get("/manifest.webmanifest")
    assert manifest.headers["content-type"] == "application/manifest+json"
    sizes = set()
    for icon in manifest.json()["icons"]:
        sizes |= {icon["sizes"]}
        assert visitor.client.get(icon["src"]).headers["content-type"] == icon["type"]
    assert {"192x192", "512x512"} <= sizes
    worker = visitor.client.get("/service-worker.js")
    assert worker.headers["content-type"].startswith("text/javascript")
    for address in re.findall(r'"((?:[\w-]+)\.(?:css|js|svg))"', worker.text):
        visitor.get(f"/static/{address}")
