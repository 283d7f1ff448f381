"""Render a `frames` block of a page: pictures drawn by a program, of which a slider shows one at a time.

`library/page_outputs.py` writes the block as JSON; static/frames.js moves between the pictures. Without JavaScript the
page shows the first one, with the program that drew it, which can be edited and run (`live_program.py`).
"""

import hashlib
import json
from collections.abc import Callable
from html import escape
from typing import Final

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clearhead.studio.text import live_program, svg
from clearhead.studio.text.translation import _

HIDDEN: Final = Markup(" hidden")


class Frames(BaseModel):
    """The keys of a block; see `clearhead.course.pack.page_programs.PageProgram`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    label: str
    values: list[str]
    start: int = Field(ge=0)
    frames: list[str] = Field(min_length=1)
    source: str
    place: int | None = Field(default=None, ge=0)  # index among the page's programs; None: cannot run again


def figure(block: str, code: Callable[[str], Markup]) -> Markup | None:
    """Return the element; None if the block is not well-formed or one of its pictures is unsafe in a page.

    Args:
        code: renders a program.
    """
    try:
        shown = Frames.model_validate(json.loads(block))
    except (ValueError, ValidationError, RecursionError):
        return None
    if shown.start >= len(shown.frames) or (shown.values and len(shown.values) != len(shown.frames)):
        return None
    drawn = pictures(shown)
    if not drawn:
        return None
    program = code(shown.source) if shown.place is None else live_program.editor(shown.place, shown.source)
    opens = _("How was this computed?") if shown.place is None else _("The program that draws it: change it")
    return Markup(  # noqa: S704 — pictures are built by `svg.figure`, every other value is escaped
        f'<figure class="frames" data-values="{escape(json.dumps(shown.values))}"><div class="came">{drawn}</div>'
        f"{_slider(shown)}<details><summary>{escape(opens)}</summary>{program}</details></figure>\n"
    )


def pictures(shown: Frames) -> Markup:
    """Return every picture as an element, one of them visible; "" if one of them is unsafe in a page."""
    prefix = f"f{hashlib.sha256(shown.model_dump_json().encode()).hexdigest()[:8]}"
    name = shown.label or _("Figure")
    drawn = [
        svg.figure(frame, f"{name} {value}".strip(), f"{prefix}-{place}-")
        for place, (frame, value) in enumerate(zip(shown.frames, shown.values or [""], strict=True))
    ]
    if not all(drawn):
        return Markup("")
    return Markup("").join(
        Markup('<div class="frame"{}>{}</div>').format(HIDDEN if place != shown.start else "", picture)
        for place, picture in enumerate(drawn)
    )


def _slider(shown: Frames) -> str:
    """Return the slider that moves between the pictures; "" if there is only one."""
    if not shown.values:
        return f"<figcaption>{escape(shown.label)}</figcaption>" if shown.label else ""
    value = escape(shown.values[shown.start])
    return (
        f'<figcaption class="script-only"><label>{escape(shown.label)} <input type="range" min="0" '
        f'max="{len(shown.values) - 1}" step="1" value="{shown.start}" aria-valuetext="{value}"></label> '
        f"<output>{value}</output></figcaption>"
    )
