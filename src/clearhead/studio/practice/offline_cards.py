"""The studio as an app that works without a network: due cards to download, and their grades to upload later.

The answer of a card is neither in the page nor with its question: it has its own address, opened when the learner turns
the card. A grade carries the card's draft, whose id becomes the attempt's, so it counts once however often it is sent.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Body, HTTPException, Query, Request
from fastapi.responses import FileResponse, HTMLResponse
from pydantic import BaseModel, Field

from clearhead.studio.learner import review_queue
from clearhead.studio.practice.asking import asked, new_draft
from clearhead.studio.questions.question import Question
from clearhead.studio.text import markdown
from clearhead.studio.text.translation import _
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.rendering import render
from clearhead.studio.web.route_marks import linkable, open_to_all
from clearhead.studio.web.work_queues import queued

router = APIRouter()
STATIC = Path(__file__).parents[1] / "static"
AHEAD = timedelta(days=1)  # cards due within this time are downloaded too
MOST = 30


class Graded(BaseModel):
    """A card graded offline: its draft, the grade, and the time in seconds since 1970."""

    draft: Annotated[str, Field(alias="ticket", max_length=2000)]
    response: Literal["again", "good"]
    at: Annotated[float, Field(allow_inf_nan=False)]


@router.get("/service-worker.js")
@open_to_all
def service_worker() -> FileResponse:
    """Serve the service worker from the root, so that its scope is every page."""
    return FileResponse(
        STATIC / "service-worker.js", media_type="text/javascript", headers={"cache-control": "no-cache"}
    )


@router.get("/manifest.webmanifest")
@open_to_all
def manifest() -> FileResponse:
    """Serve the app manifest: the studio's name and icons."""
    return FileResponse(STATIC / "manifest.webmanifest", media_type="application/manifest+json")


@router.get("/offline", response_class=HTMLResponse)
@linkable
@open_to_all
def page(request: Request) -> HTMLResponse:
    """Show the page that replaces every page without a network. Its module fills in the cards."""
    return render(request, "practice/offline.html")


@router.get("/offline/cards")
def cards(context: CurrentContext) -> dict[str, list[dict[str, str]]]:
    """Return the questions of the cards to download: those due until tomorrow, then new ones."""
    every = [item for item in context.library.items.values() if item.kind == "card"]
    state = context.progress.items
    due = [
        item
        for item in review_queue.due(every, context.progress, context.now() + AHEAD)
        if state[item.id].state != "new"
    ]
    new = [item for item in every if state[item.id].state == "new"]
    cards = []
    for item in (*due, *new)[:MOST]:
        proved = context.library.proved[item.id]
        draft = context.drafts.sign(replace(new_draft(context, item, "recall"), seed=proved.receipt.seed))
        stem = markdown.html(proved.stem) + (markdown.code(proved.given) if proved.given else "")
        topic = context.library.topic_of(item).title
        cards.append({"ticket": draft, "title": item.title or _("Card"), "topic": topic, "stem": str(stem)})
    return {"cards": cards}


@router.get("/offline/back")
@queued("programs")
def back(context: CurrentContext, draft: Annotated[str, Query(alias="ticket")]) -> dict[str, str]:
    """Return the other side of a card."""
    return {"back": str(markdown.html(_card(context, draft).proved.back))}


@router.post("/offline/attempts")
@queued("programs")
def take(context: CurrentContext, graded: Annotated[list[Graded], Body(max_length=1000)]) -> dict[str, list[str]]:
    """Store grades given offline. Return the drafts that are finished: stored now or before, or from another studio."""
    done = []
    for graded_card in graded:
        done.append(graded_card.draft)
        try:
            question = _card(context, graded_card.draft)
        except HTTPException:
            continue
        now = context.now()
        at = min(max(graded_card.at, question.draft.at), now.timestamp())  # a device's clock may be wrong
        verdict = context.verdict(question, graded_card.response)
        attempt = question.attempt(graded_card.response, verdict, datetime.fromtimestamp(at, UTC), confidence=None)
        context.store.record(replace(attempt, seconds=None))
    return {"done": done}


def _card(context: Context, draft: str) -> Question:
    question = asked(context, context.drafts.read(draft))
    if question.item.kind != "card":
        raise HTTPException(400, _("Only a card can be turned over. Answer the question to see its answer."))
    return question
