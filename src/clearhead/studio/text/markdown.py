"""Convert Markdown to HTML: formulas to MathML, programs highlighted, the author's HTML escaped."""

from functools import lru_cache
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight  # type: ignore[import-untyped]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
from pygments.lexers import DiffLexer, PythonLexer, PythonTracebackLexer  # type: ignore[import-untyped]

from clearhead.studio.text import embedded_head, guessed_head, live_program, page_figure, translation
from clearhead.studio.text.mathml import to_mathml
from clearhead.studio.text.translation import many

LONG = 40  # an inline formula with more characters may be wider than a phone
_FORMATTER = HtmlFormatter(nowrap=True)
_LEXERS = {"python": PythonLexer(), "py": PythonLexer(), "pytb": PythonTracebackLexer(), "diff": DiffLexer()}


@lru_cache(maxsize=4096)
def code(source: str, kind: str = "python") -> Markup:
    """Return a highlighted program in a `<pre>` that can be scrolled with the keyboard."""
    lexer = _LEXERS.get(kind)
    inner = highlight(source, lexer, _FORMATTER) if lexer else escape(source)
    if lexer:  # each line wraps, hanging; breaks between lines are outside, so that a copied text has them once
        inner = "\n".join(f'<span class="line">{line}</span>' for line in inner.rstrip().split("\n"))
    role = live_program.role(source) if kind in ("output", "text") else "program"
    return Markup(f'<pre class="{role}" tabindex="0"><code>{inner.rstrip()}</code></pre>\n')  # noqa: S704 — escaped above


def html(text: str) -> Markup:
    """Return Markdown as HTML."""
    return _html(text, translation.current_catalog())


@lru_cache(maxsize=4096)
def _html(text: str, _words: object) -> Markup:
    """Return the same, cached for each language: a figure of the Lens contains texts of the studio."""
    return Markup(_MARKDOWN.render(text))  # noqa: S704 — html is off in the renderer, so what it gives is ours


@lru_cache(maxsize=4096)
def inline(text: str) -> Markup:
    """Return one line of Markdown as HTML, without a paragraph around it."""
    return Markup(_MARKDOWN.renderInline(text))  # noqa: S704 — as above


def _math(source: str, *, block: bool) -> str:
    try:
        return to_mathml(source, block=block)
    except ValueError as problem:
        return f'<code title="{escape(str(problem))}">{escape(source)}</code>'


def _formula(_: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    """A formula on a line of its own, in a box that scrolls: engines disagree whether `math` itself can."""
    tag = "div" if tokens[index].type == "math_block" else "span"
    return f'<{tag} class="formula" tabindex="0">{_math(tokens[index].content, block=True)}</{tag}>'


def _inline_formula(_: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    """A formula within a line, which does not break."""
    source = tokens[index].content
    long = ' long" tabindex="0' if len(source) > LONG else ""
    return f'<span class="in-line{long}">{_math(source, block=False)}</span>'


def _fence(_: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    words = (tokens[index].info or "").split()
    shown = embedded_head.figure(tokens[index].content) if words[:1] == ["lens"] else None
    shown = guessed_head.figure(tokens[index].content, inline) if words[:1] == ["guess"] else shown
    shown = page_figure.figure(tokens[index].content, code) if words[:1] == ["frames"] else shown
    shown = live_program.program(tokens[index].content) if words[:1] == ["live"] else shown
    if shown:
        return str(shown)
    program = code(tokens[index].content, words[0] if words else "text")
    return str(_folded(program, tokens[index].content) if words[1:] == ["folded"] else program)


def _folded(program: Markup, source: str) -> Markup:
    """Fold a long program behind a line that opens it, so that its output stays near the text before it."""
    says = many("The program: %(count)s line", "The program: %(count)s lines", len(source.splitlines()))
    return Markup('<details class="folded"><summary>{}</summary>{}</details>\n').format(says, program)


def _table(_: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    return '<div class="scroll" tabindex="0"><table>\n' if tokens[index].nesting == 1 else "</table></div>\n"


def _renderer() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "smartquotes", "replacements"])
    markdown.use(dollarmath_plugin, double_inline=True)
    markdown.add_render_rule("math_inline", _inline_formula)
    for name in ("math_block", "math_inline_double"):
        markdown.add_render_rule(name, _formula)
    markdown.add_render_rule("fence", _fence)
    markdown.add_render_rule("code_block", _fence)
    markdown.add_render_rule("table_open", _table)
    markdown.add_render_rule("table_close", _table)
    return markdown


_MARKDOWN = _renderer()
