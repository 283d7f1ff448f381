"""A head of the demo model inside a page: what a ```` ```lens ```` block of a pack's page becomes.

```` ```lens
text = "She put the glass on the table and it broke"
layer = 3
head = 1
token = "it"
``` ````
"""

import tomllib
from html import escape
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clearhead.errors import ClearheadError
from clearhead.studio import demo
from clearhead.studio.desk import AtDesk
from clearhead.studio.language import _, explained
from clearhead.studio.turns import needed, queued

router = APIRouter()
LONGEST = 500  # characters of a text in a page


class Shown(BaseModel):
    """What a block says: one head over one text, and the token that is pointed at first, if any."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(min_length=1, max_length=LONGEST)
    layer: int = Field(ge=0)
    head: int = Field(ge=0)
    token: str = ""


def figure(source: str) -> Markup | None:
    """The place of a figure, which static/embed.js draws; with a way to the same numbers without JavaScript.

    None where the block does not say what to show.
    """
    try:
        shown = Shown.model_validate(tomllib.loads(source))
    except (tomllib.TOMLDecodeError, ValidationError):
        return None
    asked = {"text": shown.text, "layer": shown.layer, "head": shown.head}
    name = _("Layer %(layer)s, head %(head)s", layer=shown.layer, head=shown.head)
    lens, opens = escape(f"/lens?{urlencode(asked)}"), escape(_("Open it in the Lens"))
    return Markup(  # noqa: S704 — every value is escaped
        f'<figure class="shown-head"><section class="embed" data-source="{escape("/heads.json?" + urlencode(asked))}" '
        f'data-point="{escape(shown.token)}" aria-label="{escape(name)}"></section>'
        f'<figcaption>{escape(name)}: <q>{escape(shown.text)}</q> <a href="{lens}">{opens}</a>'
        "</figcaption></figure>\n"
    )


@router.get("/heads.json")
@queued("lens")
def head(
    desk: AtDesk,
    text: Annotated[str, Query(min_length=1, max_length=LONGEST)],
    layer: Annotated[int, Query(ge=0)],
    head: Annotated[int, Query(ge=0)],
) -> Response:
    """What `attention.js` draws of one head alone; or, with status 422, `{"error": message}`."""
    from dataclasses import replace

    from clearhead.capture import Record
    from clearhead.views.page.payload import payload

    needed()
    try:
        whole = demo.reading(text)
        matrices = list(whole.record.values())
        if layer >= len(matrices) or head >= matrices[layer].shape[1]:
            most = f"layers 0 to {len(matrices) - 1}, heads 0 to {matrices[0].shape[1] - 1}"
            return JSONResponse({"error": _("The model has %(most)s.", most=most)}, status_code=422)
        name = _("Layer %(layer)s, head %(head)s", layer=layer, head=head)
        alone = replace(whole, record=Record.of({name: matrices[layer].heads(head)}))
        return JSONResponse(payload(alone, text=text))
    except ClearheadError as error:
        return JSONResponse({"error": explained(error)}, status_code=422)
