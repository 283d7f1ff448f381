"""Routes of the two short sessions that Home offers: "I have five minutes" and "I have an interview".

The questions are chosen and stored when a session begins, so that it can be interrupted and continued. An answer gets
its feedback at once; the report comes at the end.
"""

import json
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from clearhead.course import Attempt, Item
from clearhead.course.pack.minutes import item_minutes
from clearhead.studio.learn import home, path, topic
from clearhead.studio.practice.asking import SHORT_SESSIONS, ask, new_draft
from clearhead.studio.questions.telling import of_an_interview
from clearhead.studio.text.translation import _
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.rendering import render

router = APIRouter()
MINUTES = 5


@router.get("/interview", response_class=HTMLResponse)
def interview(request: Request, context: CurrentContext) -> HTMLResponse:
    """Show the sheets to read before the twelve questions, from the topics of these questions."""
    chosen = _telling(context)
    if not chosen:
        raise topic.nothing(context, _("There is no question here yet."))
    topics = {item.topic: (context.library.pack_of(item.id), context.library.topic_of(item)) for item in chosen}
    sheets = [
        (this, text)
        for pack, this in context.library.topics()
        if (pack, this) in topics.values() and (text := context.library.page(pack, this, "recall"))
    ]
    return render(
        request,
        "practice/interview.html",
        count=len(chosen),
        minutes=round(sum(map(item_minutes, chosen))),
        sheets=sheets,
        going=_going(context, "interview"),
    )


@router.post("/sessions/{kind}")
def begin(context: CurrentContext, kind: str, again: Annotated[bool, Form()] = True) -> Response:
    """Choose the questions of a session, or continue the one in progress."""
    _known(kind)
    if again or not _going(context, kind):
        items = _telling(context) if kind == "interview" else _five_minutes(context)
        kept = {"items": [item.id for item in items], "at": context.now().timestamp()}
        context.store.keep(f"sitting:{kind}", json.dumps(kept))
    return RedirectResponse(f"/sessions/{kind}", 303)


@router.get("/sessions/{kind}", response_class=HTMLResponse)
def continue_session(request: Request, context: CurrentContext, kind: str) -> Response:
    """Ask the next question of a session; at the end, show the report."""
    _known(kind)
    items, answers = _state(context, kind)
    left = next((item for item in items if item.id not in answers), None)
    if left is not None:
        place = _("%(place)s of %(all)s", place=len(answers) + 1, all=len(items))
        return ask(request, context, left, new_draft(context, left, kind).but(place=place))
    return render(
        request,
        "practice/session_report.html",
        kind=kind,
        title=SHORT_SESSIONS[kind],
        answers=[(answers[item.id], item) for item in items],
        right=sum(answer.correct for answer in answers.values()),
    )


def _known(kind: str) -> None:
    if kind not in SHORT_SESSIONS:
        raise HTTPException(404, _("There is no session called “%(kind)s”.", kind=kind))


def _state(context: Context, kind: str) -> tuple[list[Item], dict[str, Attempt]]:
    """Return the questions of the session, and the first answer to each since it began."""
    kept = json.loads(context.store.kept(f"sitting:{kind}") or '{"items": [], "at": 0}')
    items = [context.library.items[id] for id in kept["items"] if id in context.library.items]
    answers: dict[str, Attempt] = {}
    for item in items:
        for attempt in context.history.by_item.get(item.id, ()):
            if attempt.mode == kind and attempt.at.timestamp() >= kept["at"]:
                answers.setdefault(item.id, attempt)
    return items, answers


def _going(context: Context, kind: str) -> bool:
    """Return whether a session is in progress."""
    items, answers = _state(context, kind)
    return 0 < len(answers) < len(items)


def _telling(context: Context) -> list[Item]:
    library = context.library
    return of_an_interview(library.packs, library.proved, context.progress)


def _five_minutes(context: Context) -> list[Item]:
    """Return the questions that fit into five minutes: due ones first, then the next ones on the path."""
    way = path.following(path.ways(context))
    steps = path.steps_of(way.pack, way.topic) if way else []
    fresh = [step.item for step in steps if step.item and not context.progress.items[step.item.id].attempts]
    chosen: dict[str, Item] = {}
    left = float(MINUTES)
    for item in [*home.today(context).again, *fresh]:
        minutes = context.history.seconds.get(item.id, 60 * item_minutes(item)) / 60
        if item.id in context.library.items and item.id not in chosen and minutes <= left:
            chosen[item.id] = item
            left -= minutes
    return list(chosen.values())
