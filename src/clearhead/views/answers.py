"""What a live picture asks for while one zooms and points: a tile of one head, or one token's strongest links.

The size of an answer does not grow with the length of the text.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from clearhead.errors import OptionError
from clearhead.views.numbers import numbers
from clearhead.views.payload import masked, pack, pack_bits
from clearhead.views.terminal import check

if TYPE_CHECKING:
    from clearhead.capture import Reading

MOST_CELLS = 256  # a side of a tile
MOST_LINKS = 64


def answer(reading: "Reading", question: dict[str, Any]) -> dict[str, Any]:
    """Answer one question of `attention.js`.

    Args:
        reading: one text through one model.
        question: `layer`, `head`, and either `kind` "tile" with `rows` and `cols` (each [start, stop)) and `cells`
            (the most a side); or `kind` "links" with `token` and `side` ("query" or "key").
    Returns:
        For a tile `map`, packed (1, r, c), the weights themselves where they fit, and `masked`; for links `links`, the
        strongest of the token as [query, key, weight].
    Raises:
        OptionError: there is no such head, token or region.
    """
    layer, head = _whole(question, "layer"), _whole(question, "head")
    check(reading, layer, head)
    matrix = list(reading.record.values())[layer]
    if question.get("kind") == "tile":
        return _tile(matrix, head, _span(question, "rows"), _span(question, "cols"), _whole(question, "cells"))
    if question.get("kind") == "links":
        return _links(matrix, head, _whole(question, "token"), question.get("side") == "key")
    raise OptionError(f"a question of kind {question.get('kind')!r} cannot be answered. Ask for a tile or for links.")


def _tile(matrix: Any, head: int, rows: slice, cols: slice, cells: int) -> dict[str, Any]:
    cells = max(1, min(cells, MOST_CELLS))
    rows, cols = slice(rows.start, min(rows.stop, matrix.shape[2])), slice(cols.start, min(cols.stop, matrix.shape[3]))
    height, width = rows.stop - rows.start, cols.stop - cols.start
    if height < 1 or width < 1:
        raise OptionError(f"the region is empty: the matrix is {matrix.shape[2]} × {matrix.shape[3]}. Ask within it.")
    if height <= cells and width <= cells:
        weights = numbers(matrix[0, head : head + 1, rows, cols])
    else:
        small = matrix.heads([head]).pooled(min(height, cells), min(width, cells), region=(rows, cols))
        weights = numbers(small)[0]
    return {"map": pack(weights, "u16", float(weights.max(initial=0.0))), "masked": _masked(weights, rows, cols)}


def _masked(weights: Any, rows: slice, cols: slice) -> Any:
    """As payload.masked; a causal triangle is named by its cells here, since a tile need not start at the corner."""
    said = masked(weights)
    if said != "causal" or rows == cols:
        return said
    return pack_bits(np.triu(np.ones(weights.shape[1:], dtype=np.bool_), 1))


def _links(matrix: Any, head: int, token: int, to_key: bool) -> dict[str, Any]:
    size = matrix.shape[3 if to_key else 2]
    if token >= size:
        raise OptionError(f"there is no token {token}: there are {size}.")
    weights = numbers(matrix[0, head, :, token] if to_key else matrix[0, head, token])
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
