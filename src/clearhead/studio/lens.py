"""The Lens: any text or picture through a real model, and every head of it to look at.

The page comes at once and its script asks for the data, so that loading a model holds up nothing. Without JavaScript
the page turns to `plain=1`, where the same numbers come as tables and one picture.
"""

import json
from importlib.resources import files
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from clearhead.errors import ClearheadError, OptionError
from clearhead.studio.access import open_to_all
from clearhead.studio.elsewhere import plain_page
from clearhead.studio.language import _, explained
from clearhead.studio.lens_plain import numbers
from clearhead.studio.lens_reading import Asked, Readings, Tell, asked
from clearhead.studio.lens_work import Work, refusal
from clearhead.studio.pages import render

router = APIRouter()

SENTENCE: Final = "The animal didn't cross the street because it was too tired"
EXAMPLES: Final = (
    {"text": SENTENCE},
    {"text": "The animal didn't cross the street because it was too wide"},
    {"text": "Paris is to France what Rome is to Italy"},
    {"text": "the lighthouse keeper wrote: the lighthouse keeper", "model": "induction"},
    {"text": SENTENCE, "second": "untrained"},
)
MODELS: Final = ("all-MiniLM-L6-v2", "untrained", "induction")  # those always at hand, as capture.load names them


def readings_of(request: Request) -> Readings:
    """What this studio has read, and may read."""
    readings: Readings = request.app.state.readings
    return readings


Kept = Annotated[Readings, Depends(readings_of)]


class Wanted(BaseModel):
    """What the page's script asks to be read."""

    text: str = ""
    model: str = ""
    picture: str = ""
    rollout: bool = False
    second: str = ""


class Consent(BaseModel):
    """A model whose own code may run."""

    model: str


@router.get("/lens")
@plain_page
def page(
    request: Request,
    kept: Kept,
    text: str = SENTENCE,
    model: str = "",
    layer: int = -1,
    head: int = -1,
    other: str = "",
    rollout: bool = False,
    second: str = "",
    plain: bool = False,
) -> HTMLResponse:
    """The page. A plain `def`: the server runs it in a thread, so a slow model blocks nobody else."""
    shown: dict[str, Any] = {"error": None}
    state = {"text": text.strip(), "model": model.strip(), "layer": layer, "head": head}
    if plain:
        try:
            shown = numbers(*kept.both(asked(text, model, second=second), _silent), layer, head)
        except ClearheadError as error:
            shown = {"error": explained(error)}
    state |= {"other": other.strip(), "rollout": rollout, "second": second.strip()}
    return render(request, "lens.html", asked=state, examples=EXAMPLES, models=MODELS, plain=plain, shown=shown)


@router.post("/lens/read")
async def read(request: Request, kept: Kept, wanted: Wanted) -> Response:
    """Read, and say line by line how far it is; the last line holds `payload` and its `key`, or `error`.

    Who closes the connection stops the reading.
    """
    try:
        what = asked(**wanted.model_dump())
    except ClearheadError as error:
        return JSONResponse(refusal(error), status_code=422)
    work = Work(lambda tell: {"key": what.key, "payload": _payload(kept, what, tell)})
    return StreamingResponse(work.lines(request.is_disconnected), media_type="application/x-ndjson")


@router.get("/lens/data")
def data(kept: Kept, text: str = "", model: str = "", rollout: bool = False, second: str = "") -> Response:
    """The same in one answer: what `attention.js` draws; or, with status 422, `{"error": message}`."""
    try:
        return JSONResponse(_payload(kept, asked(text, model, rollout=rollout, second=second), _silent))
    except ClearheadError as error:
        return JSONResponse(refusal(error), status_code=422)


@router.get("/lens/answer")
def answers(
    kept: Kept,
    question: str,
    key: str = "",
    text: str = "",
    model: str = "",
    rollout: bool = False,
    second: str = "",
) -> Response:
    """A tile of one head, a token's links, …: about the reading of this key, or of this text; else status 422."""
    from clearhead.views.answers import answer

    try:
        about = json.loads(question)
        if not isinstance(about, dict):
            raise OptionError(_("a question is a JSON object. Reload the page."))
        what = kept.asked(key) if key else asked(text, model, rollout=rollout, second=second)
        first, other = kept.both(what, _silent)
        return JSONResponse(answer(first, about, other))
    except ClearheadError as error:
        return JSONResponse(refusal(error), status_code=422)
    except ValueError:
        return JSONResponse({"error": _("the question is no JSON. Reload the page.")}, status_code=422)


@router.post("/lens/picture")
async def picture(request: Request, kept: Kept) -> Response:
    """Keep an uploaded picture, the body as it is, while the studio runs; its `key` is what to ask by."""
    content = await request.body()
    if not content:
        return JSONResponse({"error": _("the picture is empty. Choose another file.")}, status_code=422)
    return JSONResponse({"key": kept.add_picture(content)})


@router.post("/lens/trust")
def trust(kept: Kept, consent: Consent) -> Response:
    """The learner has read a model's code and lets it run, until the studio stops. Never by an address alone."""
    try:
        kept.trust(consent.model.strip())
    except ClearheadError as error:
        return JSONResponse(refusal(error), status_code=422)
    return Response(status_code=204)


@router.get("/views/attention.css")
@open_to_all
def style() -> Response:
    """How `attention.js` looks; the same file stands in saved pages and notebooks."""
    content = files("clearhead.views").joinpath("static", "attention.css").read_text(encoding="utf-8")
    return Response(content, media_type="text/css")


def _payload(kept: Readings, what: Asked, tell: Tell) -> dict[str, Any]:
    from clearhead.views.payload import payload

    reading, second = kept.both(what, tell)
    tell("drawing", 0, len(reading.record))
    text = what.text if not what.picture else None
    return payload(
        reading,
        text=text,
        model=what.model,
        second=second,
        progress=lambda done, total: tell("drawing", done, total),
        live=True,
    )


def _silent(_doing: str, _done: int, _total: int) -> None:
    """For answers that come in one piece: nobody is told how far they are."""
