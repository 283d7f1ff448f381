"""Render Markdown for other programs: XHTML with formulas as `\\(…\\)` and `\\[…\\]`, which Anki and Moodle draw."""

import base64
import re
from html import escape
from typing import Any
from xml.etree import ElementTree

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from clearhead.course.exchange.markup.inert import inert, is_link, reaches_out


def _formula(source: str, *, display: bool) -> str:
    if reaches_out(source):
        return f"<code>{escape(source.strip(), quote=False)}</code>"
    left, right = (r"\[", r"\]") if display else (r"\(", r"\)")
    return left + escape(re.sub(r"\n\s*\n", "\n", source.strip()), quote=False) + right


def _inline(_: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    return _formula(tokens[index].content, display="double" in tokens[index].type)


def _block(_: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    return f"<p>{_formula(tokens[index].content, display=True)}</p>\n"


def _text(_: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    """Escape text that looks like a delimiter, so that the other program does not read it as a formula."""
    text = escape(tokens[index].content, quote=True).replace("&#x27;", "'")
    return re.sub(r"(\\|\[)(?=[()\[\]]|/?latex\])", r"\1<span></span>", text).replace("$", "&#36;")


def _image(_: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    """Render a picture embedded in the text. Any other picture is named, not fetched."""
    source, words = str(tokens[index].attrs.get("src", "")), escape(tokens[index].content, quote=True)
    if source.startswith("data:image/") and not source.startswith("data:image/svg"):
        return f'<img src="{escape(source, quote=True)}" alt="{words}" />'
    return f"[picture: {words}]"


def _renderer() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "xhtmlOut": True}).enable("table")
    markdown.use(dollarmath_plugin, double_inline=True, allow_labels=False)
    for name in ("math_inline", "math_inline_double"):
        markdown.add_render_rule(name, _inline)
    markdown.add_render_rule("math_block", _block)
    markdown.add_render_rule("text", _text)
    markdown.add_render_rule("image", _image)
    allowed = markdown.validateLink

    def is_allowed(url: str) -> bool:
        return allowed(url) and (url.startswith("data:image/") or is_link(url))

    markdown.validateLink = is_allowed  # type: ignore[method-assign]
    return markdown


_MARKDOWN = _renderer()


def html(markdown: str) -> str:
    """Return Markdown as well-formed XHTML. Raw HTML is escaped, and its text is inert for other programs."""
    return inert(str(_MARKDOWN.render(markdown)).strip())


def picture(svg: str) -> str:
    """Return an XHTML element that embeds an SVG picture."""
    data = base64.b64encode(svg.encode()).decode()
    return f'<p><img alt="figure" src="data:image/svg+xml;base64,{data}" /></p>' if svg else ""


def hidden(summary: str, markdown: str) -> str:
    """Return an element that shows its text when it is opened."""
    return f'<details class="hint"><summary>{summary}</summary>\n{html(markdown)}\n</details>'


def elements(markdown: str) -> ElementTree.Element:
    """Return Markdown as a <div> of XHTML elements."""
    return parsed(html(markdown))


def parsed(xhtml: str) -> ElementTree.Element:
    """Return XHTML that we rendered as a <div> of elements."""
    return ElementTree.fromstring(f"<div>{xhtml}</div>")  # noqa: S314 — our own
