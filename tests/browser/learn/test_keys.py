"""Everything by keyboard: the list of keys is true, the focus is visible and moves forward, nothing moves with reduced
motion, and screen readers announce the result of an answer."""

import string

import pytest
from playwright.sync_api import Page, expect

from browser.learn.test_journey import ready
from browser.test_access import TOPIC

KEYS = [*string.ascii_lowercase, *string.digits, "Enter", "Space", "Control+Enter"]
# Count what a key sets off, and let it lead nowhere.
COUNTED = """() => {
  window.acted = 0;
  document.addEventListener("click", (event) => { window.acted += 1; event.preventDefault(); event.stopPropagation(); }, true);
  document.addEventListener("focusin", (event) => { if (event.target.dataset.letter) window.acted += 1; });
}"""
# What has the focus: its name, whether it is seen to have it, and whether it stands before what had it last.
FOCUSED = """() => {
  const one = document.activeElement;
  const inside = one.shadowRoot?.activeElement ?? one; // the editor's own field, within the frame that shows its focus
  const { outlineStyle, outlineWidth } = getComputedStyle(inside.closest(".cm-editor") ?? inside);
  const { top, bottom, left, right } = one.getBoundingClientRect();
  const back = window.last && window.last !== one && one !== document.body
    && Boolean(window.last.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_PRECEDING);
  window.last = one;
  return {
    name: (inside.ariaLabel || [...(one.labels ?? [])].map((label) => label.textContent).join(" ") || one.textContent).trim(),
    seen: outlineStyle !== "none" && parseFloat(outlineWidth) >= 1
      && bottom > 0 && top < innerHeight && right > 0 && left < innerWidth,
    back, tag: one.tagName, editor: one.matches(".editor"),
  };
}"""


class Hands:
    """Somebody who has a keyboard alone."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrong: list[str] = []

    def press(self, key: str) -> None:
        ready(self.page)
        self.page.keyboard.press(key)

    def tab_to(self, name: str) -> None:
        """Tab until what has the focus is called so, noting where the focus is not seen or jumps back."""
        ready(self.page)
        for _ in range(150):
            self.page.keyboard.press("Tab")
            at = self.page.evaluate(FOCUSED)
            if at["tag"] == "BODY":
                continue
            if at["editor"] and not at["name"].startswith(name):
                self.page.keyboard.press("Escape")  # Tab indents in a program, and leaves it after Escape
            if not at["seen"]:
                self.wrong.append(f"the focus is not seen on {at['name'][:40]!r} of {self.page.url}")
            if at["back"]:
                self.wrong.append(f"the focus jumps back to {at['name'][:40]!r} on {self.page.url}")
            if at["name"].startswith(name):
                return
        raise AssertionError(f"Tab never reaches {name!r} on {self.page.url}")

    def open(self, name: str) -> None:
        """To a link, and through it."""
        self.tab_to(name)
        with self.page.expect_navigation():
            self.page.keyboard.press("Enter")


def listed(page: Page) -> set[str]:
    """The keys that the list of this page names."""
    page.keyboard.press("?")
    keys: set[str] = set()
    for key in page.get_by_role("dialog").locator("kbd").all_text_contents():
        first, _, last = key.partition(" to ")
        keys |= {chr(one) for one in range(ord(first), ord(last) + 1)} if last else {key.replace("Ctrl ", "Control+")}
    page.keyboard.press("Escape")
    return keys


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.stress)], ids=["some", "all"])
def test_the_list_of_keys_names_all_that_work_and_no_other(page: Page, every: bool) -> None:
    page.goto(f"{TOPIC}/practice")
    page.get_by_text("16.0").click()
    with page.expect_navigation():
        page.get_by_role("button", name="Answer").first.click()
    here = page.url
    places = ("/", TOPIC, f"{TOPIC}/practice", f"{TOPIC}/recall", f"{TOPIC}/try", f"{TOPIC}/test", f"{TOPIC}/challenge")
    more = (f"{TOPIC}/walk", f"{TOPIC}/experiment", f"{TOPIC}/read", "/items/which-hold", "/progress")
    for place in (*places, *more, here) if every else (*places[1:5], here):
        page.goto(place)
        ready(page)
        named = listed(page)
        page.evaluate(COUNTED)
        works = set()
        for key in KEYS:
            page.evaluate("() => { document.activeElement.blur(); window.acted = 0 }")
            page.keyboard.press(key)
            if page.evaluate("window.acted"):
                works.add(key)
        assert works == named - {"/", "?", "Esc", "arrows"}, place


def test_the_list_of_keys_gives_the_focus_back(page: Page) -> None:
    page.goto(TOPIC)
    ready(page)
    link = page.get_by_role("link", name="Practice")
    link.focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_focused()
    page.keyboard.press("Escape")
    expect(link).to_be_focused()


def test_what_came_of_an_answer_is_reported(page: Page) -> None:
    page.goto("/items/scale-of-logits")
    page.get_by_role("button", name="Answer").first.click()  # nothing chosen: the browser says so, and nothing is sent
    page.get_by_text("16.0").click()
    page.locator("button[name=hint]").click()
    expect(page.locator(".hints .newest")).to_be_focused()
    assert page.locator(".hints").get_attribute("aria-live") == "polite"
    page.get_by_role("button", name="Answer").first.click()
    expect(page).to_have_title("Not right · One head, step by step · Clearhead")
    page.goto(f"{TOPIC}/recall")
    page.get_by_role("button", name="Show the answer").click()
    expect(page.locator(".card-back")).to_have_attribute("aria-live", "polite")


@pytest.mark.parametrize("look", [{"reduced_motion": "reduce"}], indirect=True, ids=["calm"])
def test_nothing_moves_for_who_asked_for_calm(page: Page) -> None:
    moving = "() => [...document.querySelectorAll('*')].flatMap((one) => [...one.getAnimations()]).length"
    slow = """() => [...document.querySelectorAll("*")].filter((one) => getComputedStyle(one).transitionDuration
      .split(", ").some((time) => parseFloat(time) > 0)).map((one) => one.outerHTML.slice(0, 80))"""
    for place in ("/", f"{TOPIC}/walk", f"{TOPIC}/practice", f"{TOPIC}/challenge", f"{TOPIC}/experiment"):
        page.goto(place)
        ready(page)
        assert page.evaluate(slow) == [], place
        assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    page.goto(f"{TOPIC}/walk")
    ready(page)
    page.get_by_role("button", name="Watch").click()
    page.get_by_label("4", exact=True).check()
    assert page.evaluate(moving) == 0
    expect(page.locator(".flying")).to_have_count(0)
