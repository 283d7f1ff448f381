"""The page that puts a question, and where each mode leads next."""

from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import HTMLResponse

from clearhead.course import Attempt, Item
from clearhead.studio import queue, topic
from clearhead.studio.desk import Desk
from clearhead.studio.language import _
from clearhead.studio.pages import render
from clearhead.studio.question import Question
from clearhead.studio.ticket import Ticket

MODES = {
    "recall": "Recall",
    "practice": "Practice",
    "review": "Review",
    "build": "Build",
    "test": "Test",
    "challenge": "Challenge",
}


def ask(
    request: Request,
    desk: Desk,
    item: Item,
    mode: str,
    *,
    done: str = "",
    ticket: Ticket | None = None,
    lacking: str = "",
    program: str = "",
    note: str = "",
    seconds: int = 0,
    bare: bool = False,
) -> HTMLResponse:
    """The page that puts this question.

    Args:
        ticket: put it again as it was put under this ticket.
        lacking: what the form lacked when it was sent.
        program: what the learner wrote before (code).
        note: said above the answer.
        seconds: on the clock; 0 is no clock.
        bare: without hints (a test).
    """
    question = put(desk, item, ticket or new_ticket(desk, item, mode))
    return render(
        request,
        "card.html" if item.kind == "card" else "question.html",
        status=422 if lacking else 200,
        **page_of(desk, question, done=done, graded=request.query_params.get("graded", "")),
        turned=False,
        lacking=lacking,
        program=program or question.proved.starter,
        note=note,
        seconds=seconds,
        gone=round(question.ticket.seconds(desk.now())),
        bare=bare,
    )


def new_ticket(desk: Desk, item: Item, mode: str) -> Ticket:
    """A ticket for putting this item now. A worked example leaves one more step to the learner with each success."""
    successes = sum(one.correct for one in desk.history.by_item.get(item.id, ()))
    return Ticket.new(item.id, seed=desk.next_seed(item), mode=mode, now=desk.now(), asked=1 + successes)


def put(desk: Desk, item: Item, ticket: Ticket) -> Question:
    """The question this ticket puts."""
    return Question(ticket, item, desk.proved(item, ticket.seed), desk.shelf.pack_of(item.id))


def asked(desk: Desk, ticket: Ticket) -> Question:
    """The question a ticket speaks of, or a 404 where its item has left the course."""
    item = desk.shelf.items.get(ticket.item)
    if item is None:
        raise HTTPException(404, _("This question has left the course."))
    return put(desk, item, ticket)


def answered(desk: Desk, attempt: Attempt) -> Question | None:
    """The question an attempt answered; None where its item has left the course."""
    item = desk.shelf.items.get(attempt.item_id)
    if item is None:
        return None
    steps = len(attempt.response) if isinstance(attempt.response, dict) else 1
    at = attempt.at.timestamp()
    return put(desk, item, Ticket(attempt.id, item.id, attempt.seed, at, attempt.mode, attempt.hints, steps))


def page_of(desk: Desk, question: Question, *, done: str = "", graded: str = "") -> dict[str, Any]:
    """What every page about a question shows."""
    this = desk.shelf.topic_of(question.item)
    return {
        "question": question,
        "item": question.item,
        "proved": question.proved,
        "ticket": desk.tickets.sign(question.ticket),
        "pack": question.pack,
        "topic": this,
        "mode": question.ticket.mode,
        "mode_name": _(MODES.get(question.ticket.mode, question.ticket.mode.capitalize())),
        "done": done,
        "graded": graded,
    }


def onward(desk: Desk, item: Item, mode: str, *, graded: str = "") -> str:
    """Where "Next" leads from this item in this mode."""
    if mode in ("test", "challenge"):  # an answer looked at after the sitting is over
        mode = "practice"
    if mode == "review":
        base = f"/review?after={item.id}"
    else:
        pack, this = desk.shelf.pack_of(item.id), desk.shelf.topic_of(item)
        base = topic.address(pack, this, mode if mode in MODES else "practice") + f"?after={item.id}"
    return f"{base}&graded={graded}" if graded else base


def rest(desk: Desk, items: list[Item], here: str, place: object) -> dict[str, Any]:
    """What the page says when nothing is left to ask."""
    return {"next_due": queue.next_due(items, desk.progress), "now": desk.now(), "here": here, "place": place}
