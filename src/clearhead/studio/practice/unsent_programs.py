"""Routes of Build: store an unsent program, and run it without its tests, which does not count as a try."""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import FormData

from clearhead import sandbox
from clearhead.course.proofs.runner import setup_chunks
from clearhead.errors import SandboxError
from clearhead.sandbox import Cancelled, Chunk, Limits
from clearhead.studio.practice.asking import asked
from clearhead.studio.practice.practice import filled, form_of, put_form_again, unsent
from clearhead.studio.questions import responses
from clearhead.studio.questions.question import Question
from clearhead.studio.text import formatting
from clearhead.studio.text.field_limits import fitting
from clearhead.studio.text.translation import _
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.saved_forms import SavedForm
from clearhead.studio.web.work_queues import needs_queue, queued

router = APIRouter()
MOST_SHOWN = 4_000  # characters of what a program printed


@router.post("/programs/draft")
def keep_draft(context: CurrentContext, form: Annotated[FormData, Depends(form_of)]) -> Response:
    """Store the unsent program of this form until its question is opened again."""
    item = context.drafts.read(str(form.get("ticket", ""))).item
    context.store.keep(unsent(item), fitting("program", str(form.get("program", ""))))
    return Response(status_code=204)


@router.post("/programs/run")
@queued("programs")
def run(request: Request, context: CurrentContext, form: Annotated[FormData, Depends(form_of)]) -> Response:
    """Run the program of this form, and show the question again with the program and its output."""
    draft = context.drafts.read(str(form.get("ticket", "")))
    question = asked(context, draft)
    if question.form != "code":
        raise HTTPException(400, _("Only a program can be run."))
    try:
        program = str(responses.read(question, form))
    except responses.Incomplete as problem:
        return put_form_again(context, draft, SavedForm(filled(form), lacking=str(problem)))
    needs_queue()
    if "application/json" in request.headers.get("accept", ""):  # a script asks
        return JSONResponse({"output": _output(context, question, program)})
    return put_form_again(context, draft, SavedForm({**filled(form), "ran": [_output(context, question, program)]}))


def _output(context: Context, question: Question, program: str) -> str:
    """Return what the program printed, and how it ended if it failed."""
    item, limits = question.item, Limits(seconds=question.item.run_limit)
    chunks = [*setup_chunks(item, question.proved.receipt.seed), Chunk(program, _("your program"))]
    try:
        outcome = sandbox.run(chunks, limits=limits, preload=question.pack.preload, owner=context.owner)
    except Cancelled:
        raise
    except SandboxError as refused:
        return str(refused)
    printed = outcome.stdout.rstrip()[:MOST_SHOWN]
    ended = "" if outcome.ok else formatting.why_ended(outcome, limits)
    return "\n".join(filter(None, (printed, ended))) or _("It ran to its end and printed nothing.")
