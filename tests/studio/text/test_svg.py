"""An item's picture stands in the page: in its colours, and with nothing in it that a picture does not need."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from clearhead.studio.text.svg import figure, paint
from clearhead.studio.web import rendering

NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'


def drawn(inside: str, root: str = "", prefix: str = "") -> ElementTree.Element:
    svg = f"<svg {NAMESPACE} {root}>{inside}</svg>"
    return ElementTree.fromstring(figure(svg, "Drawn from the run", prefix))  # noqa: S314 — made above


def test_black_is_the_ink_white_the_paper_and_a_style_becomes_attributes() -> None:
    svg = drawn('<rect style="fill: #ffffff; stroke:#000; position: fixed" width="3"/><text>a<tspan>b</tspan>c</text>')
    rect, text = svg
    assert rect.attrib == {"fill": "var(--paper)", "stroke": "currentColor", "width": "3"}
    assert svg.get("fill") == "currentColor"  # what says no colour is black, so the ink
    assert "".join(text.itertext()) == "abc"


@pytest.mark.parametrize(
    ("colour", "ours"),
    [
        ("BLACK", "currentColor"),
        ("#333", "currentColor"),
        ("gray", "var(--muted)"),
        ("#cccccc", "var(--hairline)"),
        ("#fafafa", "var(--paper)"),
        ("#1F77B4", "var(--accent)"),
        ("var(--key, #b0713e)", "var(--key, #b0713e)"),
        ("none", "none"),
        ("#b0413e", "#b0413e"),
    ],
)
def test_colours(colour: str, ours: str) -> None:
    assert paint(colour) == ours


def test_its_title_is_its_description() -> None:
    svg = drawn("<title>Three &lt;bars&gt;</title>")
    assert svg.get("aria-label") == "Drawn from the run: Three <bars>"
    assert svg.get("role") == "img"
    assert len(svg) == 0
    assert drawn("").get("aria-label") == "Drawn from the run"


def test_two_pictures_in_a_page_keep_their_ids_apart() -> None:
    inside = '<defs><clipPath id="c"><path id="p"/></clipPath></defs><g clip-path="url(#c)"><use href="#p"/></g>'
    defs, group = drawn(inside, prefix="a-")
    assert defs[0].get("id") == "a-c"
    assert group.get("clip-path") == "url(#a-c)"
    assert group[0].get("href") == "#a-p"
    assert defs[0][0].get("id") == "a-p"


@pytest.mark.parametrize(
    "hostile",
    [
        "<style>body { display: none }</style>",
        '<rect class="keys" tabindex="0" data-key="Enter" data-letter="a"/>',
        "<metadata><path/></metadata>",
        "<desc>&lt;script&gt;</desc>",
    ],
)
def test_nothing_of_it_reaches_the_page_around_it(hostile: str) -> None:
    for element in drawn(hostile):
        assert (element.tag, element.attrib) == ("rect", {})


@pytest.mark.parametrize(
    "refused", ["", "no picture", "<svg><script>1</script></svg>", '<svg><rect fill="url(http://a)"/></svg>', "<svg>"]
)
def test_what_a_page_must_not_hold_is_not_drawn(refused: str) -> None:
    assert figure(refused, "Drawn") == ""


@pytest.mark.slow
def test_matplotlibs_pictures_take_the_colours_of_the_page() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="drawing needs the `views` extra")
    from io import StringIO

    out = StringIO()
    canvas = pyplot.figure()
    canvas.subplots().plot([0, 1], [1, 3], label="a line")
    canvas.savefig(out, format="svg", metadata={"Date": None})
    pyplot.close(canvas)
    shown = figure(out.getvalue()[out.getvalue().index("<svg") :], "Drawn", "one-")
    assert 'fill="var(--paper)"' in shown
    assert 'stroke="var(--accent)"' in shown
    assert 'stroke="currentColor"' in shown
    assert "style=" not in shown
    assert "#ffffff" not in shown


def test_every_picture_of_the_course_says_its_colours_by_attributes() -> None:
    """A `<style>` is left out, so a picture must not need one for more than the colour of its text."""
    shipped = "".join(file.read_text() for file in Path(rendering.__file__).parents[2].glob("packs/*/items/*.md"))
    for style in re.findall(r"<style>(.*?)</style>", shipped):
        assert set(re.findall(r"(\w+)\{", style)) <= {"svg", "text"}, style
