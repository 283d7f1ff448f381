"""Answer a live page's questions while its reader zooms and points: a tile of a head, or a token's strongest links.

Neither the size nor the time of an answer grows with the length of the text. If an answer would take long, it holds the
number of `parts` instead (for a tile, with an outline). The page requests the parts one by one, with `part` as [which,
of how many], and stops when it no longer needs them.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from clearhead.errors import OptionError
from clearhead.views.checks import check_head
from clearhead.views.maps import numbers
from clearhead.views.media.looks import pictures_of
from clearhead.views.page import long_texts
from clearhead.views.page.logit_parts import logit_parts
from clearhead.views.page.packing import pack
from clearhead.views.page.tile import region, tile

if TYPE_CHECKING:
    from clearhead.capture import Reading

MOST_LINKS = 64
MOST_TELLING = 3  # number of queries in which two heads differ most


def answer(reading: "Reading", question: dict[str, Any], second: "Reading | None" = None) -> dict[str, Any]:
    """Answer one question of `attention.js`.

    Args:
        reading: one text through one model.
        question: `layer`, `head`, and either `kind` "tile" with `rows` and `cols` (each [start, stop)) and `cells`
            (the most a side); or `kind` "links" or "row" with `token` and `side` ("query" or "key"); or `kind` "kl"
            with `with`, another head as [layer, head]; or `kind` "why" with `query` and `key`; and `model` (0, or 1 for
            the second reading). Of a long text also `part`.
        second: another reading with the same number of tokens; a question with `model` 1 is about it.
    Returns:
        For a tile: `map`, packed (1, r, c), the weights themselves if they fit, and `masked`. For links: `links`, the
        strongest of the token as [query, key, weight]. For a row, of a picture or a sound only: `row`, all its weights
        packed (1, n). For why: `why`, the parts of a logit (logit_parts.py). For kl: `mean`, and the `most` telling
        queries as [query, nats], None for infinite. If that takes long: `parts`, and for a tile an outline with `few`,
        the number of queries of each cell that it uses. A part of a tile is some rows of cells; a part of links or kl
        is the answer about some queries, for kl with their number, `queries`.
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
            rows, cols = region(matrix, _span(question, "rows"), _span(question, "cols"))
            return tile(matrix, head, rows, cols, _whole(question, "cells"), _part(question))
        case "links":
            return _links(matrix, head, _whole(question, "token"), question.get("side") == "key", _part(question))
        case "row" if pictures_of(about) or about.sound is not None:
            weights = _line(matrix, head, _whole(question, "token"), question.get("side") == "key")
            return {"row": pack(weights[None], "u16", float(weights.max(initial=0.0)))}
        case "why":
            return {"why": logit_parts(matrix, head, _whole(question, "query"), _whole(question, "key"))}
        case "kl":
            return _kl(matrix, head, *_other(reading, second, question), _part(question))
        case kind:
            raise OptionError(f"a question of kind {kind!r} cannot be answered. Ask for a tile, links, why or kl.")


def _head(reading: "Reading", layer: int, head: int) -> Any:
    check_head(reading, layer, head)
    return list(reading.record.values())[layer]


def _other(reading: "Reading", second: "Reading | None", question: dict[str, Any]) -> tuple[Any, int]:
    """Return the head that a question compares with: its matrix and its index."""
    place = question.get("with")
    if not (isinstance(place, list) and len(place) == 2):
        raise OptionError(f"with is {place!r}, expected [layer, head].")
    other = second if question.get("model") == 1 else reading
    if other is None:
        raise OptionError("there is no second model here. Compare with a head of the same.")
    layer, head = (_number(part, "with") for part in place)
    return _head(other, layer, head), head


def _kl(matrix: Any, head: int, other: Any, other_head: int, part: tuple[int, int] | None) -> dict[str, Any]:
    """Return how one head differs from another, query by query: Kullback-Leibler divergence in nats."""
    if matrix.shape[2:] != other.shape[2:] or not hasattr(matrix, "kl"):
        raise OptionError("the two heads are of different sizes. Compare heads over one text.")
    rows = slice(0, matrix.shape[2])
    if part is None and (count := long_texts.parts(matrix, matrix.shape[2])) > 1:
        return {"parts": count}
    if part is not None:
        rows = long_texts.span(rows, part)
        matrix, other = long_texts.piece(matrix, head, rows), long_texts.piece(other, other_head, rows)
    else:
        matrix, other = matrix.heads([head]), other.heads([other_head])
    nats = numbers(matrix.kl(other))[0, 0]
    most = np.argsort(-nats, kind="stable")[:MOST_TELLING]
    telling = [[rows.start + int(query), _finite(nats[query])] for query in most]
    return {"mean": _finite(nats.mean()), "most": telling, "queries": len(nats)}


def _finite(value: Any) -> float | None:
    """Return a number for JSON, which has no infinity."""
    return float(value) if np.isfinite(value) else None


def _line(matrix: Any, head: int, token: int, to_key: bool) -> Any:
    """Return all weights of one query, or to one key: (n,)."""
    size = matrix.shape[3 if to_key else 2]
    if token >= size:
        raise OptionError(f"there is no token {token}: there are {size}.")
    if not to_key and long_texts.parts(matrix, matrix.shape[2]) > 1:
        return numbers(long_texts.piece(matrix, head, slice(token, token + 1))[0, 0, 0])
    alone = long_texts.single(matrix, head)  # so that the normalisers of this head alone are computed
    return numbers(alone[0, 0, :, token] if to_key else alone[0, 0, token])


def _links(matrix: Any, head: int, token: int, to_key: bool, part: tuple[int, int] | None) -> dict[str, Any]:
    first = 0
    if to_key and part is None and (count := long_texts.parts(matrix, matrix.shape[2])) > 1:
        return {"parts": count}
    if to_key and part is not None:
        rows = long_texts.span(slice(0, matrix.shape[2]), part)
        first, matrix, head = rows.start, long_texts.piece(matrix, head, rows), 0
    weights = _line(matrix, head, token, to_key)
    best = np.argsort(-weights, kind="stable")[:MOST_LINKS]
    kept = [int(place) for place in best if weights[place] > 0]
    pairs = [(first + place, token) if to_key else (token, place) for place in kept]
    return {"links": [[*pair, float(weights[place])] for pair, place in zip(pairs, kept, strict=True)]}


def _part(question: dict[str, Any]) -> tuple[int, int] | None:
    """Return which part is requested, of how many; None for all at once."""
    value = question.get("part")
    if value is None:
        return None
    if not (isinstance(value, list) and len(value) == 2):
        raise OptionError(f"part is {value!r}, expected [which, of how many].")
    which, count = (_number(number, "part") for number in value)
    if count not in long_texts.PARTS or which >= count:
        raise OptionError(f"part is {value!r}: there are 1, 2, 3 … {long_texts.SIDE} parts. Ask as the answer said.")
    return which, count


def _whole(question: dict[str, Any], name: str) -> int:
    return _number(question.get(name), name)


def _number(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError(f"{name} is {value!r}, expected a whole number from 0.")
    return value


def _span(question: dict[str, Any], name: str) -> slice:
    value = question.get(name)
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(end, int) for end in value)):
        raise OptionError(f"{name} is {value!r}, expected [start, stop].")
    return slice(max(0, value[0]), value[1])
