"""The Lens that writes, in Chromium: what each token was written from, stopping, going on, another token, no head."""

import csv
import json
import re
from importlib.util import find_spec
from io import BytesIO, StringIO
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from browser.learn.test_journey import until
from browser.looking import cut, everything, findings, small
from clearhead.studio.lens import writing

PROMPT = "the lighthouse keeper wrote: the ligh"
ANSWER = ".write-token:not(.write-prompt)"
# Both ends of each line are over the letters of a token that is marked; the space before a word may hang elsewhere.
LINES_MEET = """() => [...document.querySelectorAll(".write-one")].every((text) => {
  const box = text.querySelector(".write-text").getBoundingClientRect();
  const letters = (token) => {
    const range = document.createRange(), node = token.firstChild;
    range.setStart(node, Math.max(node.data.search(/\\S/), 0));
    range.setEnd(node, node.length);
    return [...range.getClientRects()];
  };
  const over = (x, y, tokens) => tokens.some((token) => letters(token).some(({ left, right, top, bottom }) =>
    x > left - box.left && x < right - box.left && y > top - box.top - 2 && y < bottom - box.top + 2));
  const [here, lit] = [".write-here", ".write-lit"].map((name) => [...text.querySelectorAll(name)]);
  const lines = [...text.querySelectorAll(".write-lines path")];
  return lines.length && lines.every((line) => {
    const [x, y, , , , , u, v] = line.getAttribute("d").match(/[\\d.]+/g).map(Number);
    return over(x, y, here) && over(u, v, [...lit, ...here]);
  });
})"""
# Whether the space before a marked word hangs at the end of the line above it.
HANGS = """() => [...document.querySelectorAll(".write-lit, .write-here")].some((token) => {
  const range = document.createRange();
  range.setStart(token.firstChild, 0);
  range.setEnd(token.firstChild, 1);
  const [first, last] = [range.getBoundingClientRect(), [...token.getClientRects()].at(-1)];
  return /^ \\S/.test(token.textContent) && last.top > first.top + 4;
})"""


def write(page: Page, count: int = 11) -> None:
    page.goto(f"/lens/write?prompt={PROMPT}&model=induction&count={count}")
    ready(page)


def ready(page: Page) -> None:
    expect(page.locator("#write-view")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#write-stop")).to_be_hidden()


def answer(page: Page, column: int = 0) -> str:
    return "".join(page.locator(".write-text").nth(column).locator(ANSWER).all_text_contents())


def test_an_answer_is_written_looked_into_and_changed(page: Page) -> None:
    write(page)
    assert answer(page) == "thouse ligh"
    aside = page.locator(".write-aside")
    page.locator(ANSWER).first.focus()
    expect(aside.get_by_role("heading").first).to_have_text("“t” was written from")
    weights = [float(text) for text in aside.locator(".write-number").all_text_contents()]
    assert weights == sorted(weights, reverse=True)
    assert page.locator(".write-lines path").count() > 0
    page.keyboard.press("ArrowRight")
    expect(aside.get_by_role("heading").first).to_have_text("“h” was written from")

    page.get_by_label("Units").select_option("words")
    assert page.locator(ANSWER).all_text_contents() == ["thouse", " ligh"]
    page.locator(ANSWER).first.hover()
    expect(aside.get_by_role("heading").first).to_have_text("“thouse” was written from")
    page.get_by_label("Units").select_option("tokens")

    page.get_by_role("gridcell", name="Layer 1, head 2").click()
    ready(page)
    page.locator(ANSWER).first.hover()
    expect(aside).to_contain_text("layer 1, head 2")
    aside.get_by_role("button", name="Why was “t” written from").first.click()
    ready(page)
    chart = page.locator(".write-reasons")
    expect(chart.get_by_role("table")).to_have_count(2)
    expect(chart).to_contain_text("Layer 1, head 2: the logit is")
    chart.evaluate("(box) => box.firstChild.replaceChildren()")
    page.locator(".write-lines path").first.dispatch_event("click")  # a link is asked about by its line too
    ready(page)
    expect(chart).to_contain_text("Layer 1, head 2: the logit is")
    page.get_by_role("button", name="Go on", exact=True).click()
    ready(page)
    assert len(answer(page)) == 22
    expect(chart.locator(".ch")).to_be_empty()  # it is of a text that is no longer there

    page.locator(ANSWER).first.hover()
    page.get_by_label("Another text here").fill("s on")
    page.get_by_role("button", name="Go on from this").click()
    ready(page)
    assert answer(page).startswith("s on")
    assert len(answer(page)) == 4 + 11
    page.locator(ANSWER).nth(1).hover()
    page.locator(".write-candidate[aria-pressed=false]").first.click()
    ready(page)
    assert answer(page)[0] == "s"


def test_a_line_ends_at_the_letters_of_a_word_that_begins_a_line(page: Page) -> None:
    write(page)
    page.get_by_label("Units").select_option("words")
    hung = 0
    for width in range(330, 480, 30):
        page.set_viewport_size({"width": width, "height": 844})
        page.locator(ANSWER).last.focus()
        until(page, LINES_MEET)
        hung += page.evaluate(HANGS)
    assert hung, "no width at which a space hangs"


@pytest.mark.parametrize("signed", [False, True])
def test_numbers_of_a_scale_do_not_run_into_each_other(page: Page, signed: bool) -> None:
    write(page)
    bars = """async (signed) => {
      const { scaleBar } = await import("/views/paint.js");
      for (const top of [1, 0.25, 0.017, 0.00123, 1.7e-5, 123]) document.getElementById("write-view").append(scaleBar(top, "nats", signed));
    }"""
    page.evaluate(bars, signed)
    assert page.locator(".ch-ticks span").count() >= 6 * 5
    assert cut(page) == []


def test_a_head_is_switched_off_beside_the_old_answer(page: Page) -> None:
    write(page)
    page.get_by_role("button", name="Which heads matter here").click()
    ready(page)
    note = page.locator(".write-heads .write-note")
    expect(note).to_contain_text("matter most")
    expect(page.get_by_role("img", name="Colour scale, nats lost without it")).to_be_visible()
    most = re.findall(r"(\d)·(\d) \(", note.text_content() or "")
    assert len(most) == 3
    for layer, head in most[:2]:
        page.get_by_role("gridcell", name=f"Layer {layer}, head {head}").click()
        ready(page)
        page.get_by_role("button", name=f"Switch {layer}·{head} off").click()
        ready(page)
    expect(page.locator(".write-title").nth(1)).to_contain_text("Without")
    assert len(answer(page, 1)) == 11
    page.locator(ANSWER).first.hover()
    expect(page.get_by_role("columnheader", name="without")).to_be_visible()
    page.get_by_role("button", name="Switch all on").click()
    expect(page.locator(".write-title")).to_have_count(1)


@pytest.mark.stress
def test_what_is_shown_is_saved(page: Page) -> None:
    write(page, 5)
    page.locator(ANSWER).first.hover()
    files = {}
    for kind in ("CSV", "JSON", "SVG", "PNG", *(("Parquet",) if find_spec("pyarrow") else ())):
        with page.expect_download() as download:
            page.get_by_role("button", name=kind, exact=True).click()
        assert download.value.suggested_filename == f"written.{kind.lower()}"
        files[kind] = Path(download.value.path()).read_bytes()
    rows = list(csv.DictReader(StringIO(files["CSV"].decode())))
    (run,) = json.loads(files["JSON"])["runs"]
    assert "".join(step["token"] for step in run["steps"]) == "thous"
    for step in run["steps"]:
        assert sum(step["weights"]) == pytest.approx(1, abs=1e-3)
        links = [row for row in rows if int(row["place"]) == step["place"]]
        assert [float(row["weight"]) for row in links] == [weight for weight in step["weights"] if weight]
    if "Parquet" in files:
        from pyarrow import parquet

        table = parquet.read_table(BytesIO(files["Parquet"])).to_pylist()
        assert [(row["place"], row["key"]) for row in table if row["weight"]] == [
            (int(row["place"]), int(row["key"])) for row in rows
        ]
    words = "".join(fromstring(files["SVG"]).itertext())  # noqa: S314 — of our own page
    assert words.replace(" ", "").endswith("thelighthous")
    assert b"<path" in files["SVG"]
    assert Image.open(BytesIO(files["PNG"])).width > 100
    page.get_by_role("link", name="Every head of this text").click()
    expect(page.locator("#lens-text")).to_have_value(f"{PROMPT}thous")


@pytest.mark.stress
def test_writing_stops_when_asked_to_and_goes_on(page: Page) -> None:
    most = writing.MOST_TOKENS
    page.goto(f"/lens/write?prompt={PROMPT}&model=induction&count={most}")
    expect(page.locator(ANSWER).nth(3)).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    ready(page)
    expect(page.locator("#write-says")).to_contain_text("Stopped")
    so_far = len(answer(page))
    assert 4 <= so_far < most
    page.get_by_label("Tokens to write").evaluate("(field) => { field.value = 3 }")
    page.get_by_role("button", name="Go on", exact=True).click()
    ready(page)
    assert len(answer(page)) == so_far + 3


def test_what_is_refused_is_said(page: Page) -> None:
    page.goto(f"/lens/write?prompt={PROMPT}&model=untrained")
    expect(page.locator("#write-says")).to_contain_text("does not write")


@pytest.mark.stress
def test_it_is_for_everybody_dark_large_and_on_a_phone(page: Page) -> None:
    write(page)
    page.get_by_role("button", name="Which heads matter here").click()
    ready(page)
    page.get_by_role("gridcell", name="Layer 1, head 2").click()
    ready(page)
    page.get_by_role("button", name="Switch 1·2 off").click()
    ready(page)
    page.locator(ANSWER).first.hover()
    assert everything(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    until(page, LINES_MEET)
    assert cut(page) + small(page) + findings(page) == []
