"""Put a question, take the answer, say why. Recall, Practice and the review of what is due all go through here."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from clearhead.course import Attempt, Item
from clearhead.studio import home, queue, topic
from clearhead.studio.desk import AtDesk, Desk
from clearhead.studio.pages import render
from clearhead.studio.question import ASKED, Question, of_attempt
from clearhead.studio.ticket import Ticket

router = APIRouter()

MODES = {"recall": "Recall", "practice": "Practice", "review": "Review"}
SURE = 0.9  # the confidence that the button "I'm sure" states


@router.get("/topics/{pack_id}/{topic_id}/recall", response_class=HTMLResponse)
def recall(
    request: Request, desk: AtDesk, pack_id: str, topic_id: str, after: str = "", more: bool = False
) -> HTMLResponse:
    return _in_topic(request, desk, pack_id, topic_id, mode="recall", after=after, more=more)


@router.get("/topics/{pack_id}/{topic_id}/practice", response_class=HTMLResponse)
def practice(
    request: Request, desk: AtDesk, pack_id: str, topic_id: str, after: str = "", more: bool = False
) -> HTMLResponse:
    return _in_topic(request, desk, pack_id, topic_id, mode="practice", after=after, more=more)


@router.get("/review", response_class=HTMLResponse)
def review(request: Request, desk: AtDesk, after: str = "") -> HTMLResponse:
    items = [item for item in desk.shelf.items.values() if item.kind in ASKED]
    waiting = queue.due(items, desk.progress, desk.now())
    item = next((item for item in waiting if item.id != after), next(iter(waiting), None))
    if item is None:
        return render(request, "rest.html", **_rest(desk, items, "/review", None))
    return ask(request, desk, item, "review", after=after, done=f"{len(waiting)} due")


@router.get("/items/{item_id}", response_class=HTMLResponse)
def one(request: Request, desk: AtDesk, item_id: str, mode: str = "practice") -> HTMLResponse:
    item = desk.shelf.items.get(item_id)
    if item is None or item.kind not in ASKED:
        raise HTTPException(404, f"There is no question {item_id} here.")
    return ask(request, desk, item, mode if mode in MODES else "practice")


@router.get("/reveal", response_class=HTMLResponse)
def reveal(request: Request, desk: AtDesk, ticket: str) -> HTMLResponse:
    question = asked(desk, desk.tickets.read(ticket))
    if question.item.kind != "card":
        raise HTTPException(400, "Only a card can be turned over. Answer the question to see its answer.")
    return render(request, "card.html", **_page(desk, question), turned=True)


@router.post("/answer")
def answer(
    request: Request,
    desk: AtDesk,
    ticket: Annotated[str, Form()],
    response: Annotated[list[str] | None, Form()] = None,
    sure: Annotated[bool, Form()] = False,
    hints: Annotated[int, Form(ge=0, le=50)] = 0,
) -> Response:
    question = asked(desk, desk.tickets.read(ticket).with_hints(hints))
    before = desk.store.attempt(question.ticket.id)
    if before is None:
        given = question.response(response or [])
        if given is None:
            return ask(request, desk, question.item, question.ticket.mode, ticket=question.ticket, nothing=True)
        confidence = SURE if sure else None
        before = question.graded(given, desk.now(), confidence=confidence)
        desk.store.record(before)
    if question.item.kind == "card":
        return RedirectResponse(_onward(desk, question.item, before.mode, graded=before.id), 303)
    return RedirectResponse(f"/attempts/{before.id}", 303)


@router.get("/attempts/{attempt_id}", response_class=HTMLResponse)
def attempt(request: Request, desk: AtDesk, attempt_id: str) -> HTMLResponse:
    kept = desk.store.attempt(attempt_id)
    question = kept and of_attempt(kept, desk.shelf.items, desk.shelf.proved)
    if not (kept and question):
        raise HTTPException(404, "There is no such answer, or its question has left the course.")
    return render(
        request,
        "feedback.html",
        **_page(desk, question),
        attempt=kept,
        verdict=question.verdict(kept.response),
        chosen=question.chosen(kept.response),
        undone=desk.store.undone(kept.id),
        onward=_onward(desk, question.item, kept.mode),
    )


@router.post("/undo")
def undo(desk: AtDesk, attempt: Annotated[str, Form()]) -> Response:
    kept = desk.store.attempt(attempt)
    if kept is None or kept.undoes is not None:
        raise HTTPException(404, "There is no such answer to take back.")
    back = Attempt(
        id=str(uuid.uuid4()),
        item_id=kept.item_id,
        item_rev=kept.item_rev,
        at=desk.now(),
        mode=kept.mode,
        correct=kept.correct,
        undoes=kept.id,
    )
    desk.store.record(back)
    return RedirectResponse(f"/items/{kept.item_id}?mode={kept.mode}", 303)


def ask(
    request: Request,
    desk: Desk,
    item: Item,
    mode: str,
    *,
    after: str = "",
    done: str = "",
    ticket: Ticket | None = None,
    nothing: bool = False,
) -> HTMLResponse:
    """The page that puts this question; `ticket` puts it again as it was, `nothing` says that no answer was ticked."""
    proved = desk.shelf.proved[item.id]
    ticket = ticket or Ticket.new(item.id, seed=proved.receipt.seed, mode=mode, now=desk.now())
    question = Question(ticket, item, proved)
    name = "card.html" if item.kind == "card" else "question.html"
    return render(
        request,
        name,
        status=422 if nothing else 200,
        **_page(desk, question, done=done, graded=request.query_params.get("graded", "")),
        turned=False,
        nothing=nothing,
    )


def asked(desk: Desk, ticket: Ticket) -> Question:
    """The question a ticket speaks of."""
    item = desk.shelf.items.get(ticket.item)
    if item is None:
        raise HTTPException(404, "This question has left the course.")
    return Question(ticket, item, desk.shelf.proved[item.id])


def _in_topic(
    request: Request, desk: Desk, pack_id: str, topic_id: str, *, mode: str, after: str, more: bool
) -> HTMLResponse:
    pack, this = topic.found(desk, pack_id, topic_id)
    every = desk.shelf.items_of(pack, this)
    items = topic.cards(every) if mode == "recall" else topic.questions(every)
    if not items:
        raise HTTPException(404, f"{this.title} has nothing for {MODES[mode]} yet.")
    home.remember(desk, home.Place(request.url.path, this.title, MODES[mode]))
    progress = desk.progress
    item = queue.following(items, progress, desk.now(), after=after)
    if item is None and more:
        item = queue.anyway(items, progress, after=after)
    if item is None:
        return render(request, "rest.html", **_rest(desk, items, request.url.path, (pack, this)))
    known = sum(queue.settled(progress.items[one.id]) for one in items)
    return ask(request, desk, item, mode, after=after, done=f"{known} of {len(items)} right so far")


def _page(desk: Desk, question: Question, *, done: str = "", graded: str = "") -> dict[str, Any]:
    """What every page about a question shows."""
    pack, this = desk.shelf.pack_of(question.item.id), desk.shelf.topic_of(question.item)
    return {
        "question": question,
        "item": question.item,
        "proved": question.proved,
        "ticket": desk.tickets.sign(question.ticket),
        "pack": pack,
        "topic": this,
        "mode": question.ticket.mode,
        "mode_name": MODES.get(question.ticket.mode, "Practice"),
        "tabs": topic.tabs(desk, pack, this),
        "done": done,
        "graded": graded,
    }


def _onward(desk: Desk, item: Item, mode: str, *, graded: str = "") -> str:
    """Where "Next" leads from this item in this mode."""
    if mode == "review":
        base = f"/review?after={item.id}"
    else:
        pack, this = desk.shelf.pack_of(item.id), desk.shelf.topic_of(item)
        base = topic.address(pack, this, mode if mode in MODES else "practice") + f"?after={item.id}"
    return f"{base}&graded={graded}" if graded else base


def _rest(desk: Desk, items: list[Item], here: str, place: object) -> dict[str, Any]:
    return {
        "next_due": queue.next_due(items, desk.progress),
        "now": desk.now(),
        "here": here,
        "place": place,
    }
