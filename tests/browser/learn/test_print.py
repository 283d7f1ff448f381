"""Printing: light in every theme, without controls, and with every picture in its light colours."""

from playwright.sync_api import Page, expect

from browser.learn.test_journey import TOPIC, ready

# The mean lightness of the first picture that a canvas holds: its colours are painted, so no style changes them.
LIGHTNESS = """() => {
  const canvas = document.querySelector(".ch-cell canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const seen = [...data].filter((value, i) => i % 4 !== 3 && data[i - (i % 4) + 3] > 0);
  return seen.reduce((sum, value) => sum + value, 0) / seen.length;
}"""
GROUND = "() => getComputedStyle(document.body).backgroundColor"


def test_the_dark_theme_prints_dark_on_light(page: Page) -> None:
    page.goto("/settings")
    page.get_by_label("dark", exact=True).check()
    with page.expect_navigation():
        page.get_by_role("button", name="Save").click()
    page.goto(f"{TOPIC}/read")
    ready(page)
    assert page.evaluate(GROUND) == "rgb(23, 25, 29)"
    page.emulate_media(media="print")
    assert page.evaluate(GROUND) == "rgb(250, 248, 244)"
    for gone in (".tabs", ".top", ".foot", ".button", "article > hr"):
        expect(page.locator(gone).first).to_be_hidden()
    assert page.locator("h1").evaluate("(one) => getComputedStyle(one).breakAfter") == "avoid"


def test_a_picture_of_the_lens_is_painted_again_for_paper(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto("/lens?model=induction&text=the+cat+the+cat")
    page.locator(".ch-cell canvas").first.wait_for(timeout=120_000)
    dark = page.evaluate(LIGHTNESS)
    page.emulate_media(media="print", color_scheme="dark")
    expect(page.locator(".ch-cell").first).to_be_visible()
    assert page.evaluate(LIGHTNESS) > dark + 50


def test_the_lens_prints_its_heads_and_not_its_controls(page: Page) -> None:
    page.goto("/lens?model=induction&text=the+cat+the+cat&layer=1&head=3")
    page.locator(".ch-head h2").wait_for(timeout=120_000)
    page.locator(".lens-save").first.wait_for()
    controls = (
        ".lens-form .row",
        ".lens-examples",
        ".lens-tabs",
        ".lens-save",
        ".ch-grid-keys",
        ".ch-order",
        ".ch-close",
    )
    for control in controls:
        expect(page.locator(control).first).to_be_visible()
    page.emulate_media(media="print")
    for control in controls:
        expect(page.locator(control).first).to_be_hidden()
    for kept in ("h1", "#lens-text", ".ch-head h2", ".ch-cell", ".ch-number"):
        expect(page.locator(kept).first).to_be_visible()


def test_an_answer_is_printed_with_its_question_and_without_what_is_folded(page: Page) -> None:
    page.goto("/items/scale-of-logits")
    assert page.locator(".sure").is_visible()
    page.get_by_text("16.0").click()
    with page.expect_navigation():
        page.get_by_role("button", name="Answer").first.click()
    ready(page)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator("details.asked .stem")).to_be_visible()
    expect(page.get_by_text("How was this computed?")).to_be_hidden()
    expect(page.get_by_text("Something is wrong with this question")).to_be_hidden()
    page.goto("/items/scale-of-logits")
    expect(page.locator(".sure")).to_be_hidden()  # nobody presses it on paper
