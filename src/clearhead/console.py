"""Rich consoles whose output is cleaned like text in `printing`. Rich comes with the extra `cli`.

In a pipe or a file, lines have no trailing spaces: Rich pads tables and wrapped lines to the width.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from clearhead.extras import needs
from clearhead.printing import clean

with needs("cli", "printing tables and progress"):
    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
    from rich.segment import Segment

_SPACES_BEFORE_BREAK: Final = re.compile(" +\n")


def console(**options: Any) -> Console:
    """Return a Rich console that ignores markup and cleans what it prints. Its own colours stay."""
    cleaning = Console(markup=False, emoji=False, highlight=False, **options)
    cleaning.push_render_hook(_Hook())
    return cleaning


class _Hook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Cleaned(renderable) for renderable in renderables]


class _Cleaned:
    """A renderable whose text is cleaned after layout."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, printer: Console, options: ConsoleOptions) -> RenderResult:
        segments = printer.render(self._inner, options)
        return _segments(segments if printer.is_terminal else _stripped(segments))


def _segments(segments: Iterable[Segment]) -> RenderResult:
    for segment in segments:
        if segment.control:
            yield segment
        else:
            style = segment.style.update_link(None) if segment.style and segment.style.link else segment.style
            yield Segment(clean(segment.text), style)


def _stripped(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Remove the spaces at the end of each line. A line's last spaces may be segments of their own."""
    held: list[Segment] = []  # spaces that end the line, unless more of it follows
    for segment in segments:
        text = _SPACES_BEFORE_BREAK.sub("\n", segment.text)
        rest = text.rstrip(" ")
        if rest:
            yield from () if rest.startswith("\n") else held
            held = []
            yield Segment(rest, segment.style)
        if len(text) > len(rest):
            held.append(Segment(text[len(rest) :], segment.style))
