"""What a live picture asks for while one zooms and points: a tile of one head, or one token's strongest links.

The size of an answer does not grow with the length of the text.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from clearhead.errors import OptionError
from clearhead.views.numbers import numbers
from clearhead.views.payload import hidden, masked, pack
from clearhead.views.terminal import check

if TYPE_CHECKING:
    from clearhead.capture import Reading

MOST_CELLS = 256  # a side of a tile
MOST_LINKS = 64
MOST_TELLING = 3  # queries in which two heads differ most


def answer(reading: "Reading", question: dict[str, Any], second: "Reading | None" = None) -> dict[str, Any]:
    """Answer one question of `attention.js`.

    Args:
        reading: one text through one model.
        question: `layer`, `head`, and either `kind` "tile" with `rows` and `cols` (each [start, stop)) and `cells`
            (the most a side); or `kind` "links" or "row" with `token` and `side` ("query" or "key"); or `kind` "kl"
            with `with`, another head as [layer, head], and `model` (0, or 1 for the second reading).
        second: another reading of as many tokens; a question with `model` 1 is about it.
    Returns:
        For a tile `map`, packed (1, r, c), the weights themselves where they fit, and `masked`; for links `links`, the
        strongest of the token as [query, key, weight]; for a row `row`, all its weights packed (1, n), of a picture
        only; for kl `mean` and the `most` telling queries as [query, nats], None for infinite.
    Raises:
        OptionError: there is no such head, token or region.
    """
    about = second if question.get("model") == 1 and question.get("kind") != "kl" else reading
    if about is None:
        raise OptionError("there is no second model here. Ask about model 0.")
    layer, head = _whole(question, "layer"), _whole(question, "head")
    matrix = _head(about, layer, head)
    match question.get("kind"):
        case "tile":
            return _tile(matrix, head, _span(question, "rows"), _span(question, "cols"), _whole(question, "cells"))
        case "links":
            return _links(matrix, head, _whole(question, "token"), question.get("side") == "key")
        case "row" if about.grid is not None:
            weights = _line(matrix, head, _whole(question, "token"), question.get("side") == "key")
            return {"row": pack(weights[None], "u16", float(weights.max(initial=0.0)))}
        case "kl":
            return _kl(matrix, head, *_other(reading, second, question))
        case kind:
            raise OptionError(f"a question of kind {kind!r} cannot be answered. Ask for a tile, links or kl.")


def _head(reading: "Reading", layer: int, head: int) -> Any:
    check(reading, layer, head)
    return list(reading.record.values())[layer]


def _other(reading: "Reading", second: "Reading | None", question: dict[str, Any]) -> tuple[Any, int]:
    """The head that a question compares with: its matrix, and which of it."""
    place = question.get("with")
    if not (isinstance(place, list) and len(place) == 2):
        raise OptionError(f"with is {place!r}, expected [layer, head].")
    other = second if question.get("model") == 1 else reading
    if other is None:
        raise OptionError("there is no second model here. Compare with a head of the same.")
    layer, head = (_whole({"with": part}, "with") for part in place)
    return _head(other, layer, head), head


def _kl(matrix: Any, head: int, other: Any, other_head: int) -> dict[str, Any]:
    """How one head differs from another, query by query: Kullback-Leibler divergence in nats."""
    if matrix.shape[2:] != other.shape[2:] or not hasattr(matrix, "kl"):
        raise OptionError("the two heads are of different sizes, or of a rollout. Compare heads over one text.")
    nats = numbers(matrix.heads([head]).kl(other.heads([other_head])))[0, 0]
    most = np.argsort(-nats, kind="stable")[:MOST_TELLING]
    return {"mean": _finite(nats.mean()), "most": [[int(query), _finite(nats[query])] for query in most]}


def _finite(value: Any) -> float | None:
    """A number for JSON, which has no infinity."""
    return float(value) if np.isfinite(value) else None


def _tile(matrix: Any, head: int, rows: slice, cols: slice, cells: int) -> dict[str, Any]:
    cells = max(1, min(cells, MOST_CELLS))
    rows, cols = slice(rows.start, min(rows.stop, matrix.shape[2])), slice(cols.start, min(cols.stop, matrix.shape[3]))
    height, width = rows.stop - rows.start, cols.stop - cols.start
    if height < 1 or width < 1:
        raise OptionError(f"the region is empty: the matrix is {matrix.shape[2]} × {matrix.shape[3]}. Ask within it.")
    one = matrix.heads([head])
    if height <= cells and width <= cells:
        weights = numbers(matrix[0, head : head + 1, rows, cols])
    else:
        weights = numbers(one.pooled(min(height, cells), min(width, cells), region=(rows, cols)))[0]
    said = masked(hidden(one, weights, (rows, cols)))
    return {"map": pack(weights, "u16", float(weights.max(initial=0.0))), "masked": said}


def _line(matrix: Any, head: int, token: int, to_key: bool) -> Any:
    """All weights of one query, or to one key: (n,)."""
    size = matrix.shape[3 if to_key else 2]
    if token >= size:
        raise OptionError(f"there is no token {token}: there are {size}.")
    return numbers(matrix[0, head, :, token] if to_key else matrix[0, head, token])


def _links(matrix: Any, head: int, token: int, to_key: bool) -> dict[str, Any]:
    weights = _line(matrix, head, token, to_key)
    best = np.argsort(-weights, kind="stable")[:MOST_LINKS]
    kept = [int(place) for place in best if weights[place] > 0]
    pairs = [(place, token) if to_key else (token, place) for place in kept]
    return {"links": [[*pair, float(weights[place])] for pair, place in zip(pairs, kept, strict=True)]}


def _whole(question: dict[str, Any], name: str) -> int:
    value = question.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError(f"{name} is {value!r}, expected a whole number from 0.")
    return value


def _span(question: dict[str, Any], name: str) -> slice:
    value = question.get(name)
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(end, int) for end in value)):
        raise OptionError(f"{name} is {value!r}, expected [start, stop].")
    return slice(max(0, value[0]), value[1])
