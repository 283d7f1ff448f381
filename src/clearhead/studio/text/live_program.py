"""Render a `live` block, a program that can be edited and run in place, and the editor of a figure.

`library/page_outputs.py` writes the block as JSON; static/live.js runs the program without leaving the page. Fields and
buttons belong to the form `page-programs` of templates/learn/read.html, so that they work without JavaScript too.
"""

import json
import re
from html import escape

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clearhead.studio.text.field_limits import LONGEST
from clearhead.studio.text.translation import _

COLUMNS = 64  # characters of a line of a program, in the column of a page
FORM = "page-programs"
_GAP = re.compile(r"\S {2,}\S")  # between two columns


class Live(BaseModel):
    """The keys of a block; `place` counts the programs of the page from 0."""

    model_config = ConfigDict(extra="forbid", strict=True)

    place: int = Field(ge=0)
    source: str
    output: str


def program(block: str) -> Markup | None:
    """Return the element; None if the block is not well-formed."""
    try:
        live = Live.model_validate(json.loads(block))
    except (ValueError, ValidationError, RecursionError):
        return None
    return Markup(  # noqa: S704 — every value is escaped
        f'<section class="live" aria-label="{escape(_("A program to change"))}">{editor(live.place, live.source)}'
        f'<div class="came">{printed(live.output)}</div></section>\n'
    )


def printed(output: str) -> Markup:
    """Return what a program printed, as an element; "" if it printed nothing."""
    if not output.strip():
        return Markup("")
    return Markup(f'<pre class="{role(output)}" tabindex="0">{escape(output.rstrip())}</pre>')  # noqa: S704 — escaped


def role(output: str) -> str:
    """Return the classes of an output's element. An output with columns keeps its lines whole; others wrap on a phone.

    >>> role("seed 1: one head ends at 0.466"), role("heads  loss\\n    1  0.51")
    ('output', 'output columns')
    """
    return "output" + " columns" * (len(_GAP.findall(output)) > 1)


def editor(place: int, source: str) -> Markup:
    """Return the field with the program, and the buttons that run it, stop it and restore it."""
    rows = sum(max(1, -(-len(line) // COLUMNS)) for line in source.rstrip().split("\n"))  # long lines wrap
    label, run = escape(_("Program, which you can change")), escape(_("Run"))
    return Markup(  # noqa: S704 — every value is escaped
        f'<textarea class="code" id="program-{place}" name="program-{place}" form="{FORM}" rows="{rows}" '
        f'spellcheck="false" autocapitalize="off" autocomplete="off" aria-label="{label}" '
        f'maxlength="{LONGEST["program"]}">\n{escape(source.rstrip())}</textarea>'
        f'<p class="row live-row"><button form="{FORM}" name="place" value="{place}">{run}</button>'
        f'<button type="button" class="quiet small" data-cancel hidden>{escape(_("Cancel"))}</button>'
        f'<button type="button" class="quiet small" data-back hidden>{escape(_("As it was"))}</button>'
        '<span class="small muted" role="status"></span></p>'
    )
