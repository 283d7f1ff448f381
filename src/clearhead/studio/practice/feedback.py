"""Routes after an answer: the feedback page, and undo."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from clearhead.course import Attempt
from clearhead.drawing import grid
from clearhead.errors import OptionError, SandboxError
from clearhead.studio.learner import confidence
from clearhead.studio.practice.asking import answered, once_more, onward, page_of
from clearhead.studio.practice.notes import report
from clearhead.studio.questions.question import Question, ends_in_class
from clearhead.studio.text.svg import figure
from clearhead.studio.text.translation import _
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.rendering import render
from clearhead.studio.web.work_queues import queued

router = APIRouter()


@router.get("/attempts/{attempt_id}", response_class=HTMLResponse)
@queued("programs")
def feedback(
    request: Request,
    context: CurrentContext,
    attempt_id: str,
    back: str = "",
    focus: str = "",
    since: int = 0,
    before: bool = False,
) -> HTMLResponse:
    kept, undone = context.attempt_now(attempt_id)
    question = kept and answered(context, kept)
    if not (kept and question):
        raise HTTPException(404, _("There is no such answer, or its question is no longer in the course."))
    try:
        verdict = context.verdict(question, kept.response)
    except OptionError as other:  # the question had another kind when it was answered
        raise HTTPException(404, _("The question has changed since, so this answer can no longer be shown.")) from other
    tries = sum(not attempt.correct for attempt in context.history.by_item.get(kept.item_id, ()))
    return render(
        request,
        "practice/feedback.html",
        **page_of(context, question),
        attempt=kept,
        verdict=verdict,
        chosen=question.chosen(kept.response),
        undone=undone,
        once_more=once_more(kept.item_id, kept.mode, focus=focus, since=since),
        focus=focus,
        since=since,
        before=before,
        onward=onward(context, question.item, kept.mode, focus=focus, since=since),
        sure=confidence.nearest_level(kept.confidence),
        back=back if back.startswith(("/topics/", "/sessions/")) else "",
        solved=kept.correct or tries >= question.item.attempts,
        note=context.store.kept(f"note:{kept.item_id}"),
        report=report(question, kept),
        tries_left=max(0, question.item.attempts - tries),
        reveals=kept.correct and ends_in_class(question.item),
        recorded=_recorded(context, question, kept.response) if question.form == "code" else None,
    )


def _recorded(context: Context, question: Question, program: object) -> dict[str, object] | None:
    """Return the inputs of the failed tests, and the attention maps as pictures; None if nothing can be run."""
    try:
        made = context.recorded(question, str(program))
    except SandboxError:
        return None
    maps = [rows and figure(grid(rows), _("Attention map")) for rows in (made.yours, made.right)]
    return {
        "inputs": made.inputs,
        "yours": maps[0],
        "right": maps[1],
        "call": made.call,
        "printed": made.printed,
    }


@router.post("/undo")
def undo(
    context: CurrentContext,
    attempt: Annotated[str, Form()],
    focus: Annotated[str, Form()] = "",
    since: Annotated[int, Form()] = 0,
) -> Response:
    """Undo an answer and ask its question again, with the same focus or in the same session."""
    kept = context.store.attempt(attempt)
    if kept is None or kept.undoes is not None:
        raise HTTPException(404, _("There is no such answer to take back."))
    back = Attempt(
        id=str(uuid.uuid4()),
        item_id=kept.item_id,
        item_rev=kept.item_rev,
        at=context.now(),
        mode=kept.mode,
        correct=kept.correct,
        undoes=kept.id,
    )
    context.store.record(back)
    return RedirectResponse(once_more(kept.item_id, kept.mode, focus=focus, since=since), 303)
