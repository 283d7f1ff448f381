"""Rich consoles whose output is cleaned like text in `printing`. Rich comes with the extra `cli`."""

from collections.abc import Iterable
from typing import Any

from clearhead.extras import needs
from clearhead.printing import clean

with needs("cli", "printing tables and progress"):
    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
    from rich.segment import Segment


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
        return _segments(printer.render(self._inner, options))


def _segments(segments: Iterable[Segment]) -> RenderResult:
    for segment in segments:
        if segment.control:
            yield segment
        else:
            style = segment.style.update_link(None) if segment.style and segment.style.link else segment.style
            yield Segment(clean(segment.text), style)
