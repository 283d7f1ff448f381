"""Checks of every page for readers who use a screen reader, the dark theme, a phone, or large text."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

# What somebody would have to scroll sideways for, or cannot read whole: the page, a control, what a control says.
_CUT = """() => {
  const wide = document.documentElement.clientWidth, cut = [];
  if (document.documentElement.scrollWidth > wide) cut.push(`the page is ${document.documentElement.scrollWidth} px wide`);
  const scrolls = (one) => one && one !== document.body
    && (["auto", "scroll"].includes(getComputedStyle(one).overflowX) || scrolls(one.parentElement));
  const seen = (one) => one.checkVisibility({ visibilityProperty: true }) && !one.closest(".away, .skip");
  const name = (one) => one.outerHTML.slice(0, 90).replaceAll("\\n", " ");
  for (const one of document.querySelectorAll("a, button, input, select, textarea, summary, label, meter, svg, h1, h2")) {
    if (!seen(one) || scrolls(one.parentElement)) continue;
    const { left, right } = one.getBoundingClientRect();
    if (left < -1 || right > wide + 1) cut.push(`reaches out of the window: ${name(one)}`);
    if (one.matches("button, .button, select, input") && one.scrollWidth > one.clientWidth + 2) cut.push(`clipped: ${name(one)}`);
  }
  for (const one of document.querySelectorAll(":is(li, dd, td) pre")) {
    if (seen(one) && one.getBoundingClientRect().left < one.parentElement.getBoundingClientRect().left - 1) cut.push(`covers what is beside it: ${name(one)}`);
  }
  const ticks = [...document.querySelectorAll(".ch-ticks span")].filter(seen);
  for (const [i, one] of ticks.entries()) {
    const next = ticks[i + 1];
    if (next?.parentElement === one.parentElement && one.getBoundingClientRect().right > next.getBoundingClientRect().left) cut.push(`runs into the next: ${name(one)}`);
  }
  const texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT), range = document.createRange();
  while (texts.nextNode()) {
    const text = texts.currentNode;
    if (!text.parentElement.checkVisibility() || text.parentElement.closest(".away, pre, code, svg, math, textarea, option")) continue;
    for (const { index, 0: word } of text.data.matchAll(text.parentElement.closest("h1") ? /[\\p{L}]+(?:-[\\p{L}]+)*/gu : /[\\p{L}]{2,18}/gu)) {
      range.setStart(text, index);
      range.setEnd(text, index + word.length);
      const lines = new Set([...range.getClientRects()].map(({ top }) => Math.round(top)));
      if (lines.size > 1) cut.push(`broken over two lines: ${word}`);
    }
  }
  return cut;
}"""
# What a finger may miss: a control less than 24 px high or wide that stands by itself, and not within a sentence.
_SMALL = """() => [...document.querySelectorAll("a, button, input, select, summary")]
  .filter((one) => one.checkVisibility({ visibilityProperty: true }) && !one.closest(".away, .skip, .tabs, p, td"))
  .filter((one) => !one.matches("li a, h2 a, h3 a") || getComputedStyle(one).display !== "inline")
  .map((one) => [one, ((one.matches("[type=radio], [type=checkbox]") && one.closest("label")) || one).getBoundingClientRect()])
  .filter(([one, { width, height }]) => width > 0 && Math.min(width, height) < 24)
  .map(([one, { width, height }]) => `${Math.round(width)} by ${Math.round(height)} px: ${one.outerHTML.slice(0, 90)}`)"""
# What is white where it is dark: the ground of an element, or a shape of a picture.
_WHITE = """() => {
  const white = (colour) => {
    const [red, green, blue, alpha = 1] = (colour.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    return colour.startsWith("rgb") && alpha > 0.5 && Math.min(red, green, blue) > 235;
  };
  const large = (one) => { const { width, height } = one.getBoundingClientRect(); return width * height > 400; };
  return [...document.querySelectorAll("body, body *")]
    .filter((one) => one.checkVisibility() && large(one))
    .filter((one) => white(getComputedStyle(one).backgroundColor)
      || (one.matches("rect, path, circle, polygon") && white(getComputedStyle(one).fill)))
    .map((one) => `white in the dark: ${one.outerHTML.slice(0, 90)}`);
}"""
# What axe finds serious or critical, a line each; of the rest it keeps no nodes, which takes half the time.
_AXE = """async (rules) => {
  const found = await axe.run({ resultTypes: ["violations"], preload: false, ...(rules && { runOnly: rules }) });
  const bad = found.violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  return bad.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 120)} ${node.failureSummary}`));
}"""
_LARGER = "size => { document.documentElement.style.fontSize = size }"


def findings(page: Page, *, colours_alone: bool = False) -> list[str]:
    """Return the serious and critical findings of axe, one line each."""
    page.wait_for_load_state("load")  # its styles too
    if not page.evaluate("'axe' in window"):
        page.evaluate(Axe().axe_script)
    found: list[str] = page.evaluate(_AXE, ["color-contrast"] if colours_alone else None)
    return found


def cut(page: Page) -> list[str]:
    """Return what is wider than the window, or than its control."""
    found: list[str] = page.evaluate(_CUT)
    return found


def small(page: Page) -> list[str]:
    """Return what is too small for a finger (WCAG 2.5.8)."""
    found: list[str] = page.evaluate(_SMALL)
    return found


def dark(page: Page) -> list[str]:
    """Return what has too little contrast in the dark theme, or is white there."""
    page.emulate_media(color_scheme="dark")
    white: list[str] = page.evaluate(_WHITE)
    found = findings(page, colours_alone=True) + white
    page.emulate_media(color_scheme="light")
    return [f"dark: {one}" for one in found]


def twice_as_large(page: Page) -> list[str]:
    """Return what is cut off at 200 %: zoomed, so that half the width is left, and with only the text doubled."""
    usual = page.viewport_size or {"width": 1280, "height": 800}
    page.set_viewport_size({"width": 640, "height": 400})
    zoomed = cut(page)
    page.set_viewport_size(usual)
    page.evaluate(_LARGER, "200%")
    text = cut(page)
    page.evaluate(_LARGER, "")
    return [f"zoomed: {one}" for one in zoomed] + [f"large text: {one}" for one in text]


def everything(page: Page) -> list[str]:
    """Run all checks, on a page of desktop width."""
    return findings(page) + cut(page) + dark(page) + twice_as_large(page)
