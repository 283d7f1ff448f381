"""A page's figure in a browser: the slider moves between the pictures a program drew, and axe finds nothing."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from browser.conftest import serve
from browser.looking import cut, findings
from browser.test_access import PHONE
from clearhead.drawing import bars
from studio import sample

WIDE = {"viewport": {"width": 1280, "height": 800}}
FIGURE = {
    "label": "Lead of the first key", "values": ["0", "1", "4"], "start": 1,
    "frames": [bars([0.5, 0.5], title="even"), bars([0.73, 0.27], title="one"), bars([0.98, 0.02], title="four")],
    "source": "svg = bars(weights)\n",
}  # fmt: skip


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The sample course, whose Read page holds a figure."""
    library = sample.library()
    pack = library.packs[0]
    text = f"Slide it.\n\n```frames\n{json.dumps(FIGURE)}\n```\n"
    yield from serve(tmp_path, replace(library, pages={(pack.id, "one-head", "read"): text}))


@pytest.mark.parametrize("look", [WIDE, PHONE], indirect=True, ids=["wide", "phone"])
def test_a_slider_moves_between_its_pictures(page: Page) -> None:
    page.goto("/topics/attention/one-head/read")
    figure = page.locator("figure.frames")
    slider = figure.get_by_role("slider", name="Lead of the first key")
    expect(figure.locator(".frame:visible")).to_have_count(1)
    expect(figure.locator("output")).to_have_text("1")
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(figure.locator("output")).to_have_text("4")
    expect(slider).to_have_attribute("aria-valuetext", "4")
    expect(figure.locator(".frame:visible svg")).to_have_attribute("aria-label", "Lead of the first key 4: four")
    page.keyboard.press("Home")
    expect(figure.locator(".frame:visible svg")).to_have_attribute("aria-label", "Lead of the first key 0: even")
    figure.get_by_text("How was this computed?").click()
    expect(figure.locator("pre.program")).to_contain_text("svg = bars(weights)")
    assert findings(page) + cut(page) == []
