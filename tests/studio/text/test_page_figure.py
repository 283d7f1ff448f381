"""The figure that a page's `frames` block becomes: pictures, a slider, the program; nothing unsafe."""

import json

import pytest

from clearhead.studio.text import markdown

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4"><title>{}</title><rect id="r" width="4"/></svg>'


def block(**more: object) -> str:
    data = {
        "label": "Width",
        "values": ["1", "2"],
        "start": 1,
        "frames": [SVG.format(1), SVG.format(2)],
        "source": "x = 1\n",
    }
    return f"```frames\n{json.dumps({**data, **more})}\n```"


def test_the_first_picture_shown_is_the_authors_choice() -> None:
    html = str(markdown.html(block()))
    assert html.count('<div class="frame"') == 2
    assert html.count("hidden>") == 1
    assert html.index("hidden") < html.index('<div class="frame"><svg')
    assert 'type="range" min="0" max="1" step="1" value="1" aria-valuetext="2"' in html
    assert "<output>2</output>" in html
    assert "How was this computed?" in html
    assert 'class="program"' in html


def test_two_pictures_of_a_page_do_not_share_ids() -> None:
    html = str(markdown.html(block() + "\n\n" + block(source="x = 2\n")))
    ids = [part.split('"')[0] for part in html.split(' id="')[1:]]
    assert len(ids) == len(set(ids)) == 4


@pytest.mark.parametrize(
    "more",
    [
        {"frames": ["<svg><script>1</script></svg>", SVG]},
        {"frames": [SVG.format(1)]},
        {"start": 2},
        {"start": -1},
        {"values": "12"},
        {"more": 1},
    ],
)
def test_a_block_that_is_not_right_is_shown_as_text(more: dict[str, object]) -> None:
    html = str(markdown.html(block(**more)))
    assert "<figure" not in html
    assert "<script" not in html


def test_what_the_author_wrote_is_escaped() -> None:
    html = str(markdown.html(block(label="<b>x</b>", values=["1", '2" onload="x'])))
    assert "<b>x" not in html
    assert '2" onload' not in html


def test_a_figure_without_a_slider_has_none() -> None:
    html = str(markdown.html(block(values=[], frames=[SVG.format(1)], start=0)))
    assert "<input" not in html
    assert "<figcaption>Width</figcaption>" in html
