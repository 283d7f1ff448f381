"""Data for the heads of the demo model that pages embed.

`/heads.json` is one head over a text; `/look.json` is what one word of the text attends to in it, word by word.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response

from clearhead.errors import ClearheadError, OptionError
from clearhead.studio.lens import demo_model
from clearhead.studio.text.embedded_head import LONGEST
from clearhead.studio.text.translation import _, explained
from clearhead.studio.web.context import CurrentContext
from clearhead.studio.web.work_queues import needs_queue, queued

router = APIRouter()


@router.get("/heads.json")
@queued("lens")
def head(
    context: CurrentContext,
    text: Annotated[str, Query(min_length=1, max_length=LONGEST)],
    layer: Annotated[int, Query(ge=0)],
    head: Annotated[int, Query(ge=0)],
) -> Response:
    """Return the data with which `attention.js` draws one head; or, with status 422, `{"error": message}`."""
    from dataclasses import replace

    from clearhead.capture import Record
    from clearhead.views.page.payload import payload

    needs_queue()
    try:
        whole = demo_model.reading(text)
        matrices = list(whole.record.values())
        if layer >= len(matrices) or head >= matrices[layer].shape[1]:
            most = f"layers 0 to {len(matrices) - 1}, heads 0 to {matrices[0].shape[1] - 1}"
            return JSONResponse({"error": _("The model has %(most)s.", most=most)}, status_code=422)
        name = _("Layer %(layer)s, head %(head)s", layer=layer, head=head)
        alone = replace(whole, record=Record.of({name: matrices[layer].heads(head)}))
        return JSONResponse(payload(alone, text=text))
    except ClearheadError as error:
        return JSONResponse({"error": explained(error)}, status_code=422)


@router.get("/look.json")
@queued("lens")
def look(
    context: CurrentContext,
    text: Annotated[str, Query(min_length=1, max_length=LONGEST)],
    token: Annotated[str, Query(min_length=1, max_length=LONGEST)],
    layer: Annotated[int, Query(ge=0)],
    head: Annotated[int, Query(ge=0)],
) -> Response:
    """Return the words of the text, each with the weight from `token`; or, with status 422, `{"error": …}`.

    The weight of a word of several tokens is their sum. `rest` is the weight on special tokens ([CLS], [SEP]).
    """
    needs_queue()
    try:
        reading = demo_model.reading(text)
        matrices = list(reading.record.values())
        if layer >= len(matrices) or head >= matrices[layer].shape[1]:
            raise OptionError(_("There is no layer %(layer)s with a head %(head)s.", layer=layer, head=head))
        words = text.split()
        owners = words_of(text, reading.pieces or reading.tokens, reading.special)
        if token not in words:
            raise OptionError(_("“%(token)s” is not a word of this text.", token=token))
        if words.index(token) not in owners:
            raise OptionError(_("The model has no token for “%(token)s”.", token=token))
        asking = owners.index(words.index(token))
        row = matrices[layer][0, head, asking].tolist()
    except ClearheadError as error:
        return JSONResponse({"error": explained(error)}, status_code=422)
    weights = [0.0] * len(words)
    for owner, weight in zip(owners, row, strict=True):
        if owner >= 0:
            weights[owner] += weight
    return JSONResponse({"words": words, "weights": weights, "at": words.index(token), "rest": 1 - sum(weights)})


def words_of(text: str, pieces: Sequence[str], special: Sequence[bool]) -> list[int]:
    """Return the index of the word in which each token ends; -1 for special tokens.

    Some words have no token: a tokenizer may drop characters, such as control characters.

    Args:
        text: the text that was read.
        pieces: the text of each token with the space before it.
        special: which tokens the model added.

    >>> words_of("I didn't", ["", "I", " didn", "'", "t"], [True, False, False, False, False])
    [-1, 0, 1, 1, 1]
    """
    starts = [word.start() for word in re.finditer(r"\S+", text)]
    ends = accumulate(map(len, pieces))
    return [
        -1 if is_special else max(0, bisect_left(starts, end) - 1)
        for end, is_special in zip(ends, special, strict=True)
    ]
