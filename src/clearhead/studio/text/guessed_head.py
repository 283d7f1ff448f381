"""Render a ```` ```guess ```` block: guess what a word looks back at, see what a head says, change a word, guess again.

```` ```guess
text = "The animal didn't cross the street because it was too tired"
token = "it"
layer = 5
head = 11
change = "tired"
to = "wide"
other = [4, 0]
otherwise = "A head of a small trained model looks back from *it* to *animal*."
``` ````

After a guess, the weights come from the demo model (`/look.json`). If the model is not installed, the text of
`otherwise` replaces them.
"""

import re
import tomllib
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clearhead.studio.text.embedded_head import LONGEST
from clearhead.studio.text.translation import _

FENCE = re.compile(r"^```guess[ \t]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)


class GuessedHead(BaseModel):
    """The keys of a block.

    Attributes:
        token: the word that looks back. change, to: the word to replace, and its replacement; "" for no second guess.
        other: layer and head of a second head, shown after the change.
        otherwise: the text to show without a model, in Markdown.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(min_length=1, max_length=LONGEST)
    token: str = Field(min_length=1)
    layer: int = Field(ge=0)
    head: int = Field(ge=0)
    change: str = ""
    to: str = ""
    other: list[int] = Field(default_factory=list, max_length=2)
    otherwise: str = ""

    @model_validator(mode="after")
    def _complete(self) -> "GuessedHead":
        words = self.text.split()
        if self.token not in words or (self.change and self.change not in words):
            raise ValueError  # both are words of the text
        if bool(self.change) != bool(self.to) or len(self.other) == 1:
            raise ValueError
        return self


def block_in(page: str) -> str:
    """Return the first block of a page, without its fence; "" if it has none."""
    match = FENCE.search(page)
    return match[1] if match else ""


def figure(source: str, inline: Any) -> Markup | None:
    """Return the element that static/guess.js drives; None if the block does not say what to show.

    Args:
        inline: converts a line of Markdown to HTML.
    """
    try:
        block = GuessedHead.model_validate(tomllib.loads(source))
    except (tomllib.TOMLDecodeError, ValidationError):
        return None
    asks = _("What does “%(token)s” mean here? Pick a word.", token=block.token)
    lens = "/lens?" + urlencode({"text": block.text, "layer": block.layer, "head": block.head})
    words = Markup(" ").join(
        Markup('<b class="word q">{}</b>').format(word)
        if word == block.token
        else Markup('<button type="button" class="word" disabled>{}</button>').format(word)
        for word in block.text.split()
    )
    named = _("Layer %(layer)s, head %(head)s", layer=block.layer, head=block.head)
    return Markup(
        '<figure class="guess" data-text="{text}" data-token="{token}" data-layer="{layer}" data-head="{head}" '
        'data-change="{change}" data-to="{to}" data-other="{other}">'
        '<p class="asks">{asks}</p><p class="sentence">{words}</p>'
        '<div class="says" role="status"></div>'
        '<p class="otherwise" hidden>{otherwise}</p>'
        '<p class="row guess-row"><button type="button" data-change hidden>{changes}</button>'
        '<button type="button" class="quiet small" data-again hidden>{again}</button></p>'
        '<figcaption>{named}. <a href="{lens}">{opens}</a></figcaption></figure>\n'
    ).format(
        text=block.text, token=block.token, layer=block.layer, head=block.head, change=block.change, to=block.to,
        other=" ".join(map(str, block.other)), asks=asks, words=words,
        otherwise=inline(block.otherwise or _("The model that answers this is not installed here.")),
        changes=_("Change “%(word)s” to “%(other)s”", word=block.change, other=block.to),
        again=_("Start over"), named=named, lens=lens, opens=_("Open it in the Lens"),
    )  # fmt: skip
