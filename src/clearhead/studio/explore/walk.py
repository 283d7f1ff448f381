"""Routes of Walk: Q, K, V and the output projection as editable matrices, and every step to the output.

The server computes the steps, so the page works without JavaScript; static/walk.js recomputes them at each keystroke.
tests/studio/explore/test_walk.py compares both.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from clearhead.studio.learn import home, path, topic
from clearhead.studio.text import formatting
from clearhead.studio.text.translation import _, mark
from clearhead.studio.web.context import CurrentContext

router = APIRouter()

Matrix = list[list[float]]
TOKENS, WIDTH = (mark("animal"), mark("street"), mark("it")), 4  # of the sentence that runs through the course
HEADS = (1, 2, 4)  # the choices for the number of heads
LARGEST = 1000.0  # larger numbers are refused, so that every step stays finite
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)

START: Mapping[str, Matrix] = {
    "q": [[1, 0, 0, 1], [2, 0, 1, 0], [0, 1, 1, 1]],
    "k": [[0, 1, 2, 0], [1, 0, 0, 1], [1, 1, 0, 1]],  # "it" looks most at "animal"
    "v": [[1, 0, 2, 0], [0, 2, 0, 1], [3, 1, 1, 0]],
    "o": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
}
NAMES = {"q": "Q", "k": "K", "v": "V", "o": "W"}


@dataclass(frozen=True)
class Head:
    """The steps of one head, with three rows (queries) each. A logit is None where the mask forbids the pair."""

    logits: list[list[float | None]]
    weights: Matrix
    output: Matrix


@dataclass(frozen=True)
class Steps:
    """The results below the editable matrices."""

    heads: list[Head]
    joined: Matrix
    result: Matrix


def compute(q: Matrix, k: Matrix, v: Matrix, o: Matrix, *, causal: bool, heads: int = 2) -> Steps:
    """Return every step of multi-head attention: split, logits, weights, output, concatenate, project."""
    narrow = WIDTH // heads
    each = []
    for first in range(0, WIDTH, narrow):
        part = slice(first, first + narrow)
        logits = [
            [
                None if causal and j > i else _dot(row[part], other[part]) / math.sqrt(narrow)
                for j, other in enumerate(k)
            ]
            for i, row in enumerate(q)
        ]
        weights = [_softmax(row) for row in logits]
        each.append(Head(logits, weights, [_mix(row, [line[part] for line in v]) for row in weights]))
    joined = [[x for head in each for x in head.output[i]] for i in range(len(q))]
    return Steps(each, joined, [_mix(row, o) for row in joined])


@router.get("/topics/{pack_id}/{topic_id}/walk", response_class=HTMLResponse)
def walk(request: Request, context: CurrentContext, pack_id: str, topic_id: str) -> Response:
    pack, this = topic.topic_at(context, pack_id, topic_id)
    if "walk" in this.pages:  # a walk of the author's own
        return topic.page(request, context, pack_id, topic_id, "walk")
    figure = path.figure_of_walk(pack, this)
    if not figure:  # an address that no page links to
        return RedirectResponse(topic.address(pack, this), status_code=303)
    choices = HEADS if figure == "heads" else (1,)
    misread: list[tuple[str, float]] = []
    given = {name: _given(request.query_params, name, misread) for name in START}
    untouched = not request.query_params
    causal = "causal" in request.query_params or (figure == "causal" and untouched)
    asked = request.query_params.get("heads", "2")
    heads = int(asked) if asked in map(str, choices) else choices[-2:][0]
    home.remember(context, home.Place(request.scope["path"], this.title, mark("Walk")))
    path.opened(context, request.scope["path"])
    return topic.mode_page(
        request,
        context,
        "explore/walk.html",
        pack,
        this,
        "walk",
        way=path.way(context, pack, this),
        given=given,
        misread=[(_named(place), formatting.number(counts)) for place, counts in misread],
        names=NAMES,
        tokens=[_(token) for token in TOKENS],
        causal=causal,
        heads=heads,
        choices=choices,
        figure=figure,
        steps=compute(**given, causal=causal, heads=heads),
        narrow=WIDTH // heads,
    )


def _given(query: Mapping[str, str], name: str, misread: list[tuple[str, float]]) -> Matrix:
    """Return a matrix from the address, `q-0-3=1.5`; a missing number has its initial value.

    So does a number that cannot be read; its place and the value used are added to `misread`.
    """

    def read(place: str, otherwise: float) -> float:
        text = query.get(place)
        value = otherwise if text is None else number(text)
        if value is None:
            misread.append((place, otherwise))
            return otherwise
        return value

    return [[read(f"{name}-{i}-{j}", value) for j, value in enumerate(row)] for i, row in enumerate(START[name])]


def _named(place: str) -> str:
    """Return the name of a field on the page: "Q, row 1, column 4" for q-0-3."""
    name, row, column = place.split("-")
    return _("%(matrix)s, row %(row)s, column %(column)s", matrix=NAMES[name], row=int(row) + 1, column=int(column) + 1)


def number(text: str) -> float | None:
    """Parse a typed number, with a point or a comma; None if it is not a number or too large. walk.js does the same.

    >>> number(" -2,5 "), number("−1e2"), number("3.5x"), number("1001")
    (-2.5, -100.0, None, None)
    """
    typed = text.strip().replace("−", "-").replace(",", ".")
    value = float(typed) if _NUMBER.fullmatch(typed) else math.inf
    return value if abs(value) <= LARGEST else None


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _softmax(row: Sequence[float | None]) -> list[float]:
    top = max(x for x in row if x is not None)
    parts = [0.0 if x is None else math.exp(x - top) for x in row]
    return [part / sum(parts) for part in parts]


def _mix(weights: Sequence[float], rows: Matrix) -> list[float]:
    return [_dot(weights, column) for column in zip(*rows, strict=True)]
