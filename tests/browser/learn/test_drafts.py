"""Drafts of forms in the browser: they are one learner's, come back where they belong, and are gone once sent."""

from playwright.sync_api import Page, expect

from browser.learn.test_journey import TOPIC, ready, until

DRAFTS = "() => Object.keys(localStorage).filter((key) => key.startsWith('draft:'))"
NONE = f"({DRAFTS})().length == 0"
LOG_OUT = """() => {
  const form = Object.assign(document.createElement("form"), { method: "post", action: "/settings/start-over" });
  const token = document.querySelector("meta[name=csrf]").content;
  form.append(Object.assign(document.createElement("input"), { type: "hidden", name: "csrf", value: token }));
  form.dataset.forgetAll = "";
  document.body.append(form);
  form.requestSubmit();
}"""


def gone(page: Page) -> None:
    """Wait until no draft is left: the form arrived."""
    until(page, NONE)


def test_a_draft_is_of_one_learner_and_ends_with_log_out(page: Page) -> None:
    page.goto(f"{TOPIC}/try")
    ready(page)
    page.get_by_label("It will print").fill("mine")
    page.evaluate("localStorage.setItem('draft:7:try:x', '{}')")
    page.reload()
    ready(page)
    expect(page.get_by_label("It will print")).to_have_value("mine")
    assert page.evaluate(DRAFTS) == ["draft:0:try:scale-of-logits"]
    with page.expect_navigation():
        page.evaluate(LOG_OUT)
    assert page.evaluate(DRAFTS) == []


def test_a_page_from_the_browsers_memory_is_asked_for_anew_after_log_out(page: Page) -> None:
    page.goto(f"{TOPIC}/try")
    ready(page)
    page.evaluate("document.body.dataset.old = ''")
    shown_again = "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))"
    page.evaluate(shown_again)
    expect(page.locator("body[data-old] main")).to_be_visible()  # a studio of one person: nobody logs out
    page.evaluate("document.documentElement.dataset.learner = 7; document.cookie = 'clearhead-learner=7'")
    page.evaluate(shown_again)
    expect(page.locator("body[data-old] main")).to_be_visible()  # nobody logged out: it stays as it was left
    page.evaluate("document.cookie = 'clearhead-learner=71'")
    with page.expect_navigation():
        page.evaluate(shown_again)
    expect(page.locator("main")).to_be_visible()
    assert page.locator("body[data-old]").count() == 0


def test_a_draft_of_what_was_changed_since_is_not_put_over_it(page: Page) -> None:
    page.goto(f"{TOPIC}/practice")
    page.get_by_text("16.0").click()
    with page.expect_navigation():
        page.get_by_role("button", name="Answer").first.click()
    page.get_by_text("Your note on this question").click()
    page.get_by_label("Your note", exact=True).fill("first")
    with page.expect_event("load"):  # the page before it shows "first" too
        page.get_by_role("button", name="Save the note").click()
    gone(page)
    expect(page.get_by_label("Your note", exact=True)).to_have_value("first")
    ready(page)
    page.get_by_label("Your note", exact=True).fill("second")
    # A draft is kept a moment after one stops typing.
    until(page, "localStorage.getItem('draft:0:note:scale-of-logits')?.includes('second')")
    draft = page.evaluate("localStorage.getItem('draft:0:note:scale-of-logits')")
    with page.expect_event("load"):
        page.get_by_role("button", name="Save the note").click()
    gone(page)
    page.evaluate(
        "(draft) => localStorage.setItem('draft:0:note:scale-of-logits', draft)", draft.replace("second", "old")
    )
    page.reload()
    ready(page)
    expect(page.get_by_label("Your note", exact=True)).to_have_value("second")
