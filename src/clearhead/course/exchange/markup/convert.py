"""Convert other programs' HTML, plain text and Markdown to our Markdown. Report what a pack cannot hold."""

import re

from clearhead.course.exchange.markup import formulas
from clearhead.course.exchange.markup.html_tree import Node, tree
from clearhead.course.exchange.markup.markdown_writer import Writer
from clearhead.course.exchange.report import Lost

_SOUND = re.compile(r"\[sound:([^\]\n]{1,300})\]|\[anki:(?:play|tts)[^\]\n]{0,300}\]")


def from_html(markup: str, lost: Lost, hints: list[str] | None = None) -> str:
    """Return HTML as Markdown that displays the same; `hints` takes the text of `<details class="hint">` elements."""
    hidden = formulas.from_html(with_newlines(markup))
    writer = Writer(lost, hidden.fill)
    written = writer.blocks(tree(_SOUND.sub(lambda match: _sound(match, lost), hidden.text)).children)
    if hints is not None:
        hints.extend(hidden.fill(hint).strip() for hint in writer.hints)
    return hidden.fill(written).strip()


def from_text(text: str) -> str:
    """Return plain text as Markdown that displays the same; indented lines become a program."""
    text = with_newlines(text).strip("\n")
    if re.search(r"\n[ \t]+\S|\n#", text):
        return Writer(lambda _: None, str).fenced(text, "text")
    hidden = formulas.from_text(text)
    writer = Writer(lambda _: None, hidden.fill)
    blocks = []
    for part in re.split(r"\n[ \t]*\n", hidden.text):
        rows = [node for row in part.split("\n") for node in (Node("br"), row)][1:]
        blocks += writer.paragraphs(rows)
    return hidden.fill("\n\n".join(blocks)).strip()


def from_markdown(text: str, lost: Lost) -> str:
    """Return other programs' Markdown with formulas between dollar signs and without pictures."""
    hidden = formulas.from_markdown(with_newlines(text).strip(), lost)
    return hidden.fill(hidden.text)


def with_newlines(text: str) -> str:
    """Return the text with every line ended by a newline alone, whichever system wrote it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _sound(match: re.Match[str], lost: Lost) -> str:
    lost(f"sound {match[1]}" if match[1] else "speech made from text")
    return f"[sound {match[1]}]" if match[1] else ""
