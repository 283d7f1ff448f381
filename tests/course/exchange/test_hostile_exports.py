"""Exports make the importing program do nothing: no sound, no LaTeX, no file, no formula, no link."""

import csv
import html as entities
import re
import sqlite3
import zipfile
from pathlib import Path
from xml.etree import ElementTree  # of files we wrote ourselves

import pytest

from clearhead.course.exchange import FORMS
from clearhead.course.exchange.csv_table import write_csv
from clearhead.course.exchange.draft import Draft
from clearhead.course.exchange.drafts import read
from clearhead.course.exchange.markup.inert import inert, without_controls
from clearhead.course.exchange.markup.markdown import elements, html
from clearhead.course.exchange.question import Question, QuestionOption

TAGS = (
    "[latex]\\input{x}[/latex]", "[LaTeX]x[/laTex]", "[$]x[/$]", "[$$]x[/$$]", "[sound:a.mp3]", "[SOUND:a]", "[anki:tts lang=en]a[/anki:tts]",
    "[anki:play:q:0]", "@@PLUGINFILE@@/a", "@@1+1@@", "[tex]x[/tex]", "[tex width=9]x[/tex]", "[algebra]x[/algebra]",
)  # fmt: skip
# What Anki and Moodle look for, in the HTML as it is written.
ACTS = re.compile(r"\[/?(?:latex|tex|algebra|\$\$?)\s*\]|\[(?:sound|anki|tex)[: ]|@@", re.IGNORECASE)
PLACES = (
    "{}", "`{}`", "```\n{}\n```", "    {}", "```{}\nx\n```", "[x](http://a.example/{})", '[x](http://a.example "{}")',
    "# {}", "> {}", "| {} |\n| --- |\n| {} |", "*a*{}", "${}$", "$$\n{}\n$$", "\\{}", "<b title='{}'>", "<http://a.example/{}>",
)  # fmt: skip


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("place", PLACES)
def test_no_tag_of_a_reader_comes_through(tag: str, place: str) -> None:
    made = html(place.replace("{}", tag))
    assert not ACTS.search(made), made
    elements(place.replace("{}", tag))  # well-formed


def test_the_text_stays() -> None:
    assert "".join(elements("`[sound:a.mp3]` and [latex]").itertext()).split() == ["[sound:a.mp3]", "and", "[latex]"]
    assert entities.unescape(inert("[sound:a] @@x")) == "[sound:a] @@x"
    assert inert("a[0] [text] user@host [ok]") == "a[0] [text] user@host [ok]"


@pytest.mark.parametrize(
    "formula",
    [r"\href{javascript:alert(1)}{x}", r"\url{x}", r"\require{html}x", r"\def\x{\x\x}\x", r"\newcommand{\x}{\x}", r"\input{/etc/passwd}",
     r"\class{main}{x}", r"\style{position:fixed}{x}", r"\write18{ls}", r"\htmlData{a=b}{x}", r"\includegraphics{x}", r"\let\a\b"],
)  # fmt: skip
@pytest.mark.parametrize("marks", ["${}$", "$$\n{}\n$$", "a $${}$$ b"])
def test_a_formula_that_reaches_out_is_shown_as_text(formula: str, marks: str) -> None:
    made = html(marks.replace("{}", formula))
    assert "<code>\\" in made
    assert r"\(" not in made
    assert r"\[" not in made


@pytest.mark.parametrize(
    "formula", [r"\frac{a}{b}", r"\text{read me}", r"\left(x\right)", r"\delta \text{style}", r"\hat{h}"]
)
def test_formulas_stay_formulas(formula: str) -> None:
    assert r"\(" in html(f"${formula}$")


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", "ms-msdt:x", "anki:x", "steam://run/1", "file:///etc/passwd", "vbscript:x", "data:text/html,x"]
)  # fmt: skip
def test_links_open_pages_alone(link: str) -> None:
    assert "href" not in html(f"[x]({link}) <{link}>")
    assert "href" in html("[x](https://a.example) [y](/items/one) [z](mailto:a@b.example)")


@pytest.mark.parametrize("source", ["http://a.example/p.png", "//a.example/p.png", "local.png", "@@PLUGINFILE@@/a.png"])
def test_no_picture_is_fetched(source: str) -> None:
    assert "<img" not in html(f"![words]({source})")
    assert "[picture: words]" in html(f"![words]({source})")
    assert "<img" in html("![x](data:image/png;base64,AAAA)")


def hostile(text: str) -> Question:
    options = (QuestionOption("a", text, True, text), QuestionOption("b", "other", False, text))
    return Question(
        "one", "pack", "topic", "choice", text, "options", text, text, text, text, ("c",), 1, options, hints=(text,),
        pitfalls=text,
    )  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_format(form: str, tmp_path: Path) -> None:
    """All tags, control characters, and line breaks in names, in each field of each format."""
    text = " ".join(TAGS) + "\x00\x0b\x1b[31m\ufffe \n\n$CATEGORY: $course$/x\n\n::t:: q {=a}\n"
    ending, write = FORMS[form]
    place = tmp_path / f"x{ending}"
    write([without_controls(hostile(text))], without_controls(text[:200]), place)
    for part in parts(place):
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe]", part)
        if form in ("anki", "moodle", "gift"):
            body = re.sub(r"(?s)<name>.*?</name>|<category>.*?</category>|::.*?::|\$CATEGORY:[^\n]*", "", part)
            assert not ACTS.search(body.replace("\\", "")), body
        if form == "gift":
            assert len(re.findall(r"(?m)^::", part)) == 1
            assert len(re.findall(r"(?m)^\$CATEGORY", part)) == 1


def parts(place: Path) -> list[str]:
    """The texts that a file holds."""
    if place.suffix == ".apkg":
        with zipfile.ZipFile(place) as package:
            copy = place.with_suffix(".db")
            copy.write_bytes(package.read("collection.anki2"))
        connection = sqlite3.connect(copy)
        found = [one for (one,) in connection.execute("SELECT flds FROM notes")]
        connection.close()
        return [one.replace("\x1f", "\n") for one in found]
    if place.suffix == ".zip":
        with zipfile.ZipFile(place) as package:
            texts = [package.read(name).decode() for name in package.namelist()]
        for one in texts:
            ElementTree.fromstring(one)  # noqa: S314 — well-formed
        return texts
    if place.suffix == ".xml":
        ElementTree.parse(place)  # noqa: S314 — our own
    return [place.read_text()]


@pytest.mark.parametrize(
    "cell",
    ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", " =1", "\n=1", "\xa0=1", "\ufeff=1", "\u200b+1", "\u3000@x", "＝1", "  ＋1", "'=1",
     "a;=1+1", "a;;=1", "a; \"=1", "a\t@x", "a|-1", "a\n+1", "a;'=1", "=1;=2\n=3", "'", "a;'"],
)  # fmt: skip
def test_no_cell_is_a_formula(cell: str, tmp_path: Path) -> None:
    place = tmp_path / "x.csv"
    write_csv([hostile(cell)], "", place)
    with place.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for separators in ("", ";", "\t", "|", ";\n"):  # what a spreadsheet may be set to split cells at
        parts = [
            part for value in rows[0].values() for part in re.split(f"[{separators}]" if separators else r"(?!)", value)
        ]
        assert not any(part.lstrip(' \n\xa0\ufeff\u200b\u3000"')[:1] in set("=+-@＝＋－＠\t\r") for part in parts)
    (draft,) = read(place)
    assert isinstance(draft, Draft)
    assert draft.stem == cell
