"""Markdown to HTML: every formula of the shipped packs is drawn, and nothing of an author's HTML comes through."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import clearhead
from clearhead.studio.text import markdown
from clearhead.studio.text.mathml import to_mathml

PACKS = Path(clearhead.__file__).parent / "packs"
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$])\$([^$\n]+)\$(?!\$)", re.S)


def formulas() -> list[str]:
    found = set()
    for page in PACKS.rglob("*.md"):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.S)
        found |= {block or inline for block, inline in FORMULA.findall(text)}
    return sorted(found)


def elements(html: str) -> set[str]:
    class Names(HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen.update([tag, *(name for name, _ in attrs)])

    seen: set[str] = set()
    Names().feed(html)
    return seen


def test_the_shipped_packs_have_formulas():
    assert len(formulas()) > 20


@pytest.mark.parametrize("formula", formulas())
def test_every_shipped_formula_is_drawn(formula):
    drawn = to_mathml(formula)
    assert drawn.startswith("<math")
    assert "\\" not in drawn


def test_a_fraction_over_a_root():
    drawn = to_mathml(r"\frac{QK^\top}{\sqrt{D}}")
    assert re.search(r"<mfrac>.*<msup>.*</msup>.*<msqrt>.*</msqrt>.*</mfrac>", drawn)


@pytest.mark.parametrize(
    "hostile", [r"\text{<script>alert(1)</script>}", "<img src=x onerror=y>", r"a \text{\" onload=\"} b"]
)
def test_a_formula_cannot_bring_html(hostile):
    allowed = {"math", "mrow", "mi", "mo", "mn", "mtext", "mspace", "xmlns", "display", "mathvariant", "width", "code"}
    assert elements(str(markdown.html(f"${hostile}$"))) <= allowed | {"p", "title", "stretchy", "form", "span", "class"}


@pytest.mark.parametrize("unknown", [r"\href{javascript:alert(1)}{x}", r"\style{x:y}{z}", r"\nonsense{x}", r"\frac{1"])
def test_a_command_it_does_not_know_is_refused_and_its_source_shown(unknown):
    with pytest.raises(ValueError):
        to_mathml(unknown)
    assert "<code" in markdown.html(f"${unknown}$")


def test_html_in_prose_is_text():
    assert "<script" not in markdown.html("Hello <script>alert(1)</script> [x](javascript:alert(1))")
    assert 'href="javascript' not in markdown.html("[x](javascript:alert(1))")
