"""The Lens: any text through a real model, and every head of it to look at.

The page comes at once and its script asks for the data, so that loading a model holds up nothing. Without JavaScript
the page turns to `plain=1`, where the same numbers come as tables and one picture.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from clearhead.errors import ClearheadError, OptionError
from clearhead.studio.pages import render

if TYPE_CHECKING:
    from clearhead.capture import Loaded, Reading

# What needs torch is imported where it is used: a studio starts, and teaches, without it.

router = APIRouter()

SENTENCE = "The animal didn't cross the street because it was too tired"
EXAMPLES = (
    SENTENCE,
    "The animal didn't cross the street because it was too wide",
    "She put the glass on the table and it broke",
    "Paris is to France what Rome is to Italy",
)
_reading = Lock()  # one text at a time: two first visits must not load a model twice, nor texts mix


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address says: the whole state of the page."""

    text: str
    model: str | None
    layer: int
    head: int
    other: str = ""  # a second text, to see beside the first
    rollout: bool = False


@router.get("/lens")
def page(
    request: Request,
    text: str = SENTENCE,
    model: str = "",
    layer: int = -1,
    head: int = -1,
    other: str = "",
    rollout: bool = False,
    plain: bool = False,
) -> HTMLResponse:
    """The page. A plain `def`: the server runs it in a thread, so a slow model blocks nobody else."""
    asked = Asked(text.strip(), model.strip() or None, layer, head, other.strip(), rollout)
    shown = _plain(asked) if plain else {}
    return render(request, "lens.html", asked=asked, examples=EXAMPLES, plain=plain, shown=shown)


@router.get("/lens/data")
def data(text: Annotated[str, Query()] = "", model: str = "", rollout: bool = False) -> Response:
    """What `attention.js` draws; or, with status 422, `{"error": message}`."""
    from clearhead.views.payload import payload
    from clearhead.views.rolled import rolled

    try:
        reading = _read(model.strip() or None, text.strip())
        return JSONResponse(
            payload(rolled(reading) if rollout else reading, text=text.strip(), model=model.strip() or None)
        )
    except ClearheadError as error:
        return JSONResponse({"error": str(error)}, status_code=422)


@router.get("/lens/answer")
def answers(text: str, question: str, model: str = "", rollout: bool = False) -> Response:
    """A tile of one head, or a token's links; or, with status 422, `{"error": message}`."""
    from clearhead.views.answers import answer
    from clearhead.views.rolled import rolled

    try:
        asked = json.loads(question)
        if not isinstance(asked, dict):
            raise OptionError("a question is a JSON object. Reload the page.")
        reading = _read(model.strip() or None, text.strip())
        return JSONResponse(answer(rolled(reading) if rollout else reading, asked))
    except (ClearheadError, ValueError) as error:
        return JSONResponse({"error": str(error)}, status_code=422)


@router.get("/views/attention.css")
def style() -> Response:
    """How `attention.js` looks; the same file stands in saved pages and notebooks."""
    content = files("clearhead.views").joinpath("static", "attention.css").read_text(encoding="utf-8")
    return Response(content, media_type="text/css")


def _read(model: str | None, text: str) -> "Reading":
    with _reading:
        return _kept(model, text)


@lru_cache(maxsize=4)
def _kept(model: str | None, text: str) -> "Reading":
    """A text through a model; the last few are kept, since one picture asks many questions of the same reading."""
    from clearhead.capture import read

    return read(_loaded(model), text)


@lru_cache(maxsize=2)
def _loaded(model: str | None) -> "Loaded":
    from clearhead.capture import load

    return load(model)


def _plain(asked: Asked) -> dict[str, Any]:
    """The numbers of one head, and a way to every other; or the message that says why not."""
    from clearhead.views.listing import listing
    from clearhead.views.ranking import telling

    try:
        reading = _read(asked.model, asked.text)
    except ClearheadError as error:
        return {"error": str(error)}
    matrices = list(reading.record.values())
    layer, head = asked.layer, asked.head
    if not (0 <= layer < len(matrices) and 0 <= head < matrices[layer].shape[1]):
        first = telling(reading)
        layer, head = first.layer, first.head
    listed = listing(reading, layer=layer, head=head)["heads"][0]
    rows = [
        {"token": token, "links": [(reading.tokens[key], weight) for key, weight in links[:8]]}
        for token, links in zip(reading.tokens, listed["links"], strict=True)
    ]
    return {
        "error": None,
        "model": reading.model_name,
        "layer": layer,
        "head": head,
        "breadth": listed["scores"].get("breadth"),
        "tokens": reading.tokens,
        "margin": 0.6 + 0.37 * min(max(map(len, reading.tokens)), 11),  # room for names, in cells
        "weights": listed["weights"] if len(reading.tokens) <= 32 else None,
        "rows": rows,
        "heads": [matrix.shape[1] for matrix in matrices],
    }
