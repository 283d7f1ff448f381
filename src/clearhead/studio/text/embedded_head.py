"""Render a ```` ```lens ```` block of a pack's page: one head of the demo model over one text.

```` ```lens
text = "She put the glass on the table and it broke"
layer = 3
head = 1
token = "it"
``` ````
"""

import tomllib
from html import escape
from urllib.parse import urlencode

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clearhead.studio.text.translation import _

LONGEST = 500  # characters of a text in a page


class EmbeddedHead(BaseModel):
    """The keys of a block: one head over one text, and the token that is highlighted first, if any."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(min_length=1, max_length=LONGEST)
    layer: int = Field(ge=0)
    head: int = Field(ge=0)
    token: str = ""


def figure(source: str) -> Markup | None:
    """Return the element that static/embed.js draws into, with a link to the same numbers without JavaScript.

    None if the block does not say what to show.
    """
    try:
        block = EmbeddedHead.model_validate(tomllib.loads(source))
    except (tomllib.TOMLDecodeError, ValidationError):
        return None
    parameters = urlencode({"text": block.text, "layer": block.layer, "head": block.head})
    name = _("Layer %(layer)s, head %(head)s", layer=block.layer, head=block.head)
    lens, opens = escape(f"/lens?{parameters}"), escape(_("Open it in the Lens"))
    return Markup(  # noqa: S704 — every value is escaped
        f'<figure class="shown-head"><section class="embed" data-source="{escape("/heads.json?" + parameters)}" '
        f'data-point="{escape(block.token)}" aria-label="{escape(name)}"></section>'
        f'<figcaption>{escape(name)}: <q>{escape(block.text)}</q> <a href="{lens}">{opens}</a>'
        "</figcaption></figure>\n"
    )
