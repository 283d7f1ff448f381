"""Make inert what other programs act on: Anki's media and LaTeX tags, Moodle's files and filters, formulas.

These programs search the HTML source: text, code and attributes alike. Replacing the bracket by a character reference
stops them and displays the same.
"""

import re
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final, TypeVar

T = TypeVar("T")

_BRACKET: Final = re.compile(
    r"\[(?=/?(?:latex|tex|algebra|\$\$?|&#36;(?:&#36;)?)\s*\]|(?:sound|anki|tex)\b)", re.IGNORECASE
)
# Commands of MathJax and TeX that reach beyond the formula: links, files, macros, attributes of the page.
_REACHES: Final = re.compile(
    r"\\(?:href|url|require|html\w*|class|cssId|style|data|(?:re)?new(?:command|environment)|providecommand|[egx]?def|let"
    r"|futurelet|input|include|import|openin|openout|read|write\w*|immediate|catcode|csname|special|usepackage"
    r"|documentclass|begingroup|loop|unicode|mmlToken|texttip|toggle|bbox|includegraphics)(?![A-Za-z])"
)
_NOT_TEXT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_SCHEME: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")


def inert(markup: str) -> str:
    """Return HTML that displays the same and contains no tags of other programs.

    >>> inert("<code>[sound:a.mp3]</code> @@PLUGINFILE@@/b")
    '<code>&#91;sound:a.mp3]</code> &#64;&#64;PLUGINFILE&#64;&#64;/b'
    """
    return _BRACKET.sub("&#91;", markup).replace("@@", "&#64;&#64;")


def reaches_out(formula: str) -> bool:
    """Return whether a formula contains commands beyond drawing."""
    return _REACHES.search(formula) is not None


def is_link(target: str) -> bool:
    """Return whether a link opens a page or an e-mail. Other schemes start programs."""
    scheme = _SCHEME.match(target)
    return scheme is None or scheme[1].lower() in ("http", "https", "mailto")


def one_line(text: str) -> str:
    """Return the name on one line, for a list of names."""
    return " ".join(text.split())


def category(*names: str) -> str:
    """Return a path of Moodle's categories. A slash inside a name is doubled."""
    return "/".join(["$course$", "top", *(one_line(name).replace("/", "//") for name in names)])


def without_controls(value: T) -> T:
    """Return the value with the characters removed that XML cannot hold or terminals act on, in all its texts."""
    made: Any = value
    if isinstance(value, str):
        made = _NOT_TEXT.sub("", value)
    elif isinstance(value, tuple):
        made = tuple(without_controls(part) for part in value)
    elif is_dataclass(value) and not isinstance(value, type):
        made = replace(value, **{field.name: without_controls(getattr(value, field.name)) for field in fields(value)})
    result: T = made
    return result
