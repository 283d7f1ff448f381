"""Routes of the Lens: any text, picture or sound through a real model, with every head to look at.

The page is sent at once and its script requests the data, so loading a model delays nothing. Without JavaScript the
page redirects to `plain=1`, which shows the same numbers as tables and one picture.
"""

import json
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from clearhead.errors import ClearheadError, OptionError
from clearhead.studio.lens import model_list
from clearhead.studio.lens.jobs import Job, error_fields
from clearhead.studio.lens.reading_request import ReadingRequest
from clearhead.studio.lens.readings import Readings, Tell
from clearhead.studio.lens.without_script import numbers
from clearhead.studio.text.field_limits import fitting
from clearhead.studio.text.translation import _, explained, translate
from clearhead.studio.web.context import CurrentContext
from clearhead.studio.web.rendering import render
from clearhead.studio.web.route_marks import linkable, open_to_all
from clearhead.studio.web.security import HEADER
from clearhead.studio.web.work_queues import Busy, needs_queue, queued

router = APIRouter()

SENTENCE: Final = "The animal didn't cross the street because it was too tired"
EXAMPLES: Final = (
    {"text": SENTENCE},
    {"text": "The animal didn't cross the street because it was too wide"},
    {"text": "Paris is to France what Rome is to Italy"},
    {"text": "the lighthouse keeper wrote: the lighthouse keeper", "model": "induction"},
    {"text": SENTENCE, "second": "untrained"},
)


def readings_of(request: Request) -> Readings:
    """Return the readings of this studio."""
    readings: Readings = request.app.state.readings
    return readings


Kept = Annotated[Readings, Depends(readings_of)]
FromQuery = Annotated[ReadingRequest, Depends()]


class Consent(BaseModel):
    """The model whose code the learner allows to run."""

    model: str


@router.get("/lens")
@linkable
@queued("lens")
def page(
    request: Request,
    context: CurrentContext,
    kept: Kept,
    text: str = SENTENCE,
    model: str = "",
    layer: int = -1,
    head: int = -1,
    other: str = "",
    rollout: bool = False,
    second: str = "",
    target: str = "",
    units: str = "tokens",
    without_script: Annotated[bool, Query(alias="plain")] = False,
) -> HTMLResponse:
    """Show the page. Without JavaScript it reads in the Lens's queue, so that a slow model blocks nobody else."""
    fitting("lens", text)
    shown: dict[str, Any] = {"error": None}
    state = {"text": text.strip(), "model": model.strip(), "layer": layer, "head": head}
    if without_script:
        needs_queue()
        try:
            shown = numbers(
                *kept.both(ReadingRequest(text, model, second=second, target=target, units=units).checked(), _silent),
                layer,
                head,
            )
        except ClearheadError as error:
            shown = {"error": explained(error)}
    state |= {"other": other.strip(), "rollout": rollout, "second": second.strip(), "target": target.strip()}
    state["units"] = units.strip()
    return render(
        request,
        "lens/lens.html",
        asked=state,
        examples=EXAMPLES,
        models=model_list.names(context.settings.shared),
        plain=without_script,
        shown=shown,
    )


@router.post("/lens/read")
async def read(request: Request, context: CurrentContext, kept: Kept, wanted: ReadingRequest) -> Response:
    """Stream the progress of a reading, line by line; the last line holds `payload` and its `key`, or `error`.

    Closing the connection stops the reading.
    """
    try:
        requested = wanted.checked()
    except ClearheadError as error:
        return JSONResponse(error_fields(error), status_code=422)

    async def lines() -> AsyncIterator[str]:
        try:
            queue = context.queues["lens"]
            async with queue.slot(context.store.learner):
                work = Job(
                    lambda tell: {"key": requested.key, "payload": _payload(kept, requested, tell)}, queue.threads
                )
                async for line in work.lines(request.is_disconnected):
                    yield line
        except Busy as busy:
            yield json.dumps({"error": str(busy)}) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@router.get("/lens/data")
@queued("lens")
def data(context: CurrentContext, kept: Kept, wanted: FromQuery) -> Response:
    """Return the data for `attention.js` in one response; or, with status 422, `{"error": message}`."""
    needs_queue()
    try:
        return JSONResponse(_payload(kept, wanted.checked(), _silent))
    except ClearheadError as error:
        return JSONResponse(error_fields(error), status_code=422)


@router.get("/lens/answer")
@queued("lens")
def answers(context: CurrentContext, kept: Kept, wanted: FromQuery, question: str, key: str = "") -> Response:
    """Answer a question (a tile, links, …) about the reading with this key or of this text; else status 422."""
    from clearhead.views.page.questions import answer

    needs_queue()
    try:
        about = json.loads(fitting("question", question))
        if not isinstance(about, dict):
            raise OptionError(_("a question is a JSON object. Reload the page."))
        requested = kept.request(key) if key else wanted.checked()
        read = kept.with_models if about.get("kind") == "why" else kept.both
        first, other = read(requested, _silent)
        return JSONResponse(answer(first, about, other))
    except ClearheadError as error:
        return JSONResponse(error_fields(error), status_code=422)
    except (ValueError, RecursionError):
        return JSONResponse({"error": _("the question is not JSON. Reload the page.")}, status_code=422)


@router.get("/lens/save")
@queued("lens")
def save(
    context: CurrentContext,
    kept: Kept,
    key: str,
    kind: Annotated[str, Query(max_length=10)],
    layer: Annotated[int, Query(ge=-1)] = -1,
    head: Annotated[int, Query(ge=-1)] = -1,
) -> Response:
    """Send a picture or the numbers of a head, or of all heads, of this reading as a file; else status 422."""
    from clearhead.views.page.saving import NUMBERS, PICTURES, saved

    needs_queue()
    place = (None, None) if layer < 0 or head < 0 else (layer, head)
    try:
        reading, second = kept.both(kept.request(key), _silent)
        content = saved(reading, kind, layer=place[0], head=place[1], second=second)
    except ClearheadError as error:
        return JSONResponse(error_fields(error), status_code=422)
    name = f"attention-{layer}-{head}.{kind}" if place[0] is not None else f"attention.{kind}"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=(PICTURES | NUMBERS)[kind], headers=headers)


@router.post("/lens/picture")
async def picture(request: Request, kept: Kept) -> Response:
    """Keep an uploaded picture or sound (the request's body) while the studio runs, and return its `key`."""
    if HEADER not in request.headers:  # a form, whose body was read for its token
        return JSONResponse({"error": _("a file is sent by the page. Reload it and choose the file again.")}, 422)
    content = await request.body()
    if not content:
        return JSONResponse({"error": _("the file is empty. Choose another one.")}, status_code=422)
    return JSONResponse({"key": kept.add_upload(content)})


@router.post("/lens/trust")
def trust(kept: Kept, consent: Consent) -> Response:
    """Allow a model's code to run until the studio stops. Only a form can do this, never an address alone."""
    try:
        kept.trust(consent.model.strip())
    except ClearheadError as error:
        return JSONResponse(error_fields(error), status_code=422)
    return Response(status_code=204)


@router.get("/views/attention.css")
@open_to_all
def style() -> Response:
    """Serve the style sheet of `attention.js`, which saved pages and notebooks contain too."""
    content = files("clearhead.views").joinpath("static", "attention.css").read_text(encoding="utf-8")
    return Response(content, media_type="text/css")


def _payload(kept: Readings, requested: ReadingRequest, tell: Tell) -> dict[str, Any]:
    from clearhead.views.page.payload import payload
    from clearhead.views.page.saving import kinds

    reading, second = kept.both(requested, tell)
    tell("drawing", 0, len(reading.record))
    text = None if reading.grid is not None else requested.text  # a model of pictures reads no words
    described = payload(
        reading,
        text=text,
        model=requested.model,
        target=requested.target or None,
        second=second,
        progress=lambda done, total: tell("drawing", done, total),
        live=True,
    )
    note = described["note"]
    return described | {"saves": kinds(), "note": note and translate(note)}


def _silent(_doing: str, _done: int, _total: int) -> None:
    """Ignore progress, for responses that are sent in one piece."""
