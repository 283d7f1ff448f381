"""Markdown to HTML, on the server: formulas to MathML, programs highlighted, no HTML of the author let through."""

from functools import lru_cache
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight  # type: ignore[import-untyped]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
from pygments.lexers import DiffLexer, PythonLexer, PythonTracebackLexer  # type: ignore[import-untyped]

from clearhead.studio import language, tour
from clearhead.studio.mathml import to_mathml

_FORMATTER = HtmlFormatter(nowrap=True)
_LEXERS = {"python": PythonLexer(), "py": PythonLexer(), "pytb": PythonTracebackLexer(), "diff": DiffLexer()}


@lru_cache(maxsize=4096)
def code(source: str, kind: str = "python") -> Markup:
    """A program, highlighted, in a `<pre>` one can scroll with the keyboard."""
    lexer = _LEXERS.get(kind)
    inner = highlight(source, lexer, _FORMATTER) if lexer else escape(source)
    role = "output" if kind in ("output", "text") else "program"
    return Markup(f'<pre class="{role}" tabindex="0"><code>{inner.rstrip()}</code></pre>\n')  # noqa: S704 — escaped above


def html(text: str) -> Markup:
    """A page's worth of Markdown as HTML."""
    return _html(text, language.spoken())


@lru_cache(maxsize=4096)
def _html(text: str, _words: object) -> Markup:
    """The same, kept for each language: a figure of the Lens has words of the studio's."""
    return Markup(_MARKDOWN.render(text))  # noqa: S704 — html is off in the renderer, so what it gives is ours


@lru_cache(maxsize=4096)
def inline(text: str) -> Markup:
    """One line of Markdown as HTML without a paragraph around it."""
    return Markup(_MARKDOWN.renderInline(text))  # noqa: S704 — as above


def _math(source: str, options: dict[str, Any]) -> str:
    block = bool(options["display_mode"])
    try:
        math = to_mathml(source, block=block)
        return math.replace('<math display="block"', '<math display="block" tabindex="0"', 1)  # wide ones scroll
    except ValueError as problem:
        return f'<code title="{escape(str(problem))}">{escape(source)}</code>'


def _fence(_: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    words = (tokens[index].info or "").split()
    shown = tour.figure(tokens[index].content) if words[:1] == ["lens"] else None
    if shown:
        return str(shown)
    return str(code(tokens[index].content, words[0] if words else "text"))


def _table(_: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    return '<div class="scroll" tabindex="0"><table>\n' if tokens[index].nesting == 1 else "</table></div>\n"


def _renderer() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "smartquotes", "replacements"])
    markdown.use(dollarmath_plugin, renderer=_math, double_inline=True)
    markdown.add_render_rule("fence", _fence)
    markdown.add_render_rule("code_block", _fence)
    markdown.add_render_rule("table_open", _table)
    markdown.add_render_rule("table_close", _table)
    return markdown


_MARKDOWN = _renderer()
