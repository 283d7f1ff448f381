"""The one place that writes to a terminal: text of packs, models, files and names cannot move the cursor or set a link.

Control characters (C0 but for tab and line break, C1), marks that reorder text, invisible tags and lone surrogates are
shown as the escapes that Python writes for them: `\\x1b[2J`. Rich's markup is off. Not `typer.echo`: it writes UTF-8
where the terminal says ASCII.
"""

import contextlib
import json
import re
import sys
from collections.abc import Iterable
from typing import Any, Final

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def clean(text: str) -> str:
    r"""The text with every character that a terminal acts on shown as an escape.

    >>> clean("a\x1b[31mred\u202e")
    'a\\x1b[31mred\\u202e'
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def show(text: object, end: str = "\n") -> None:
    """A result, on standard output, at once and cleaned."""
    print(clean(str(text)), end=end, flush=True)


def show_entry(text: object) -> None:
    """One entry of a list. Its further lines are indented, so that none can pass for another entry."""
    show(str(text).replace("\n", "\n    "))


def show_json(data: Any) -> None:
    """Data as one line of JSON, in which unsafe characters are escaped as JSON escapes them.

    Where the terminal's encoding is not Unicode, every other letter is escaped too, so that the line stays JSON.
    """
    letters = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(data, ensure_ascii=not letters)
    print(_UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], text), flush=True)


def say(sentence: object) -> None:
    """A message, on standard error, cleaned; where that cannot be written, nothing."""
    with contextlib.suppress(OSError, ValueError):
        print(clean(str(sentence)), file=sys.stderr, flush=True)


def console(**options: Any) -> Console:
    """A Rich console that reads no markup and cleans what it prints; its own colours stay."""
    made = Console(markup=False, emoji=False, highlight=False, **options)
    made.push_render_hook(_Hook())
    return made


class _Hook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Cleaned(one) for one in renderables]


class _Cleaned:
    """A renderable whose text is cleaned after it is laid out."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, printer: Console, options: ConsoleOptions) -> RenderResult:
        return _segments(printer.render(self._inner, options))


def _segments(found: Iterable[Segment]) -> RenderResult:
    for segment in found:
        if segment.control:
            yield segment
        else:
            style = segment.style.update_link(None) if segment.style and segment.style.link else segment.style
            yield Segment(clean(segment.text), style)
