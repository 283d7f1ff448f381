"""The figure that a `frames` block of a page becomes: pictures drawn by a program, one shown at a time by a slider.

`library/page_outputs.py` writes the block, as JSON; static/frames.js moves between the pictures. Without JavaScript
the first one is there, with the program that drew it, which can be edited and run (`live_program.py`).
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
    place: int | None = Field(default=None, ge=0)  # among the programs of the page; None: it cannot be run again


def figure(block: str, code: Callable[[str], Markup]) -> Markup | None:
    """Return the element; None where the block is not well-formed or one of its pictures must not be shown in a page.

    Args:
        code: what shows a program.
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
    """Return every picture as an element, one of them visible; "" where one of them must not be shown in a page."""
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
    """What moves between the pictures; "" where there is one alone."""
    if not shown.values:
        return f"<figcaption>{escape(shown.label)}</figcaption>" if shown.label else ""
    value = escape(shown.values[shown.start])
    return (
        f'<figcaption class="script-only"><label>{escape(shown.label)} <input type="range" min="0" '
        f'max="{len(shown.values) - 1}" step="1" value="{shown.start}" aria-valuetext="{value}"></label> '
        f"<output>{value}</output></figcaption>"
    )
