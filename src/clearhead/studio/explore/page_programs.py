"""The route that runs a program of a page as the reader edited it, after the programs before it on that page.

It runs confined, as in Try, and nothing is graded. A script gets the outcome as data and shows it below the program. A
form is redirected to the page, which then shows the outcome first.
"""

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from markupsafe import Markup
from starlette.datastructures import FormData

from clearhead.course.pack.page_programs import page_programs
from clearhead.errors import SandboxError
from clearhead.studio.explore.playground import LIMITS
from clearhead.studio.learn import topic
from clearhead.studio.library.page_outputs import Rerun, frames, rerun
from clearhead.studio.practice.practice import form_of
from clearhead.studio.text import live_program, page_figure
from clearhead.studio.text.field_limits import fitting, index_in
from clearhead.studio.text.translation import _
from clearhead.studio.web import saved_forms
from clearhead.studio.web.context import CurrentContext
from clearhead.studio.web.work_queues import needs_queue, queued

router = APIRouter()


@router.post("/topics/{pack_id}/{topic_id}/{mode}/run")
@queued("programs")
def run(
    request: Request,
    context: CurrentContext,
    pack_id: str,
    topic_id: str,
    mode: str,
    form: Annotated[FormData, Depends(form_of)],
) -> Response:
    """Run the program whose button was pressed, with the source in its field."""
    pack, this = topic.topic_at(context, pack_id, topic_id)
    page = this.pages.get(topic.PAGES.get(mode, ""))
    place = None if page is None else index_in(len(page_programs(page)), str(form.get("place", "")))
    if page is None or place is None:
        raise HTTPException(404, _("This page has no such program. Load the page again."))
    source = fitting("program", str(form.get(f"program-{place}", "")))
    needs_queue()
    try:
        html, problem = _shown(rerun(page, pack, place, source, LIMITS, context.owner), place)
    except SandboxError as refused:
        html, problem = Markup(""), str(refused)
    if "application/json" in request.headers.get("accept", ""):  # a script asks
        return JSONResponse({"html": html, "problem": problem})
    id = secrets.token_hex(6)
    outcome = {"html": html, "problem": problem, "program": source, "place": str(place), "mode": mode}
    saved_forms.keep(context, "run", id, outcome)
    return RedirectResponse(f"{topic.address(pack, this, mode)}?run={id}#ran", 303)


def _shown(again: Rerun, place: int) -> tuple[Markup, str]:
    """Return a program's output as elements, and why it did not finish or shows nothing."""
    program = again.program
    if not program.draws:
        output = "".join(again.outputs).strip("\n")
        nothing = "" if output.strip() else _("It ran and printed nothing.")
        return live_program.printed(output), again.problem or nothing
    if again.problem:
        return Markup(""), again.problem
    shown: Any = page_figure.Frames.model_validate_json(frames(program, again.outputs, place))
    drawn = page_figure.pictures(shown) if all(again.outputs) else Markup("")
    return drawn, "" if drawn else _("It ran and drew nothing that can be shown: set svg to a picture.")
