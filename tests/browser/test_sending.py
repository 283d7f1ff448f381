"""A form that cannot be sent stays on its page as it was filled in, and counts once when it is sent again."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from browser.conftest import serve
from browser.learn.test_journey import TOPIC, ready
from clearhead.studio.accounts.users import open_users
from clearhead.studio.web.settings import Settings
from studio import sample

TEMPLATES = Path(__file__).parents[2] / "src" / "clearhead" / "studio" / "templates"
WORD = "a long password of the lighthouse"
SAYS = "Not sent: the studio cannot be reached."
# Forms are sent one after another, as their buttons would send them; each must say that it was not sent.
SEND_ALL = """async (says) => {
  const forms = [...document.querySelectorAll("form")].filter((form) => form.method === "post" && form.id !== "page-programs");
  const held = (form) => [...new FormData(form)].toString();
  const failed = [];
  for (const form of forms) {
    for (const field of form.querySelectorAll("[type=text], [type=password], textarea:not([readonly])")) field.value = "mine, typed here";
    for (const box of form.querySelectorAll("[type=radio], [type=checkbox]")) box.checked = true;
    const buttons = [...form.querySelectorAll("button:not([type=button], [data-run-untested])")];
    for (const button of buttons) {
      const before = held(form);
      form.requestSubmit(button);
      for (let tries = 0; tries < 250 && !form.textContent.includes(says); tries++) await new Promise((done) => setTimeout(done, 20));
      const name = `${form.getAttribute("action")} ${button.textContent.trim()}`;
      if (!form.textContent.includes(says)) failed.push(`says nothing: ${name}`);
      if (form.querySelector(".underway")) failed.push(`seems under way: ${name}`);
      if (held(form) !== before) failed.push(`lost: ${name}`);
      document.querySelectorAll(".unsent").forEach((sign) => sign.remove());
    }
  }
  return [failed, forms.map((form) => form.getAttribute("action") ?? location.pathname)];
}"""


def count(page: Page) -> int:
    return len(page.evaluate("fetch('/settings/data.json').then((answer) => answer.json())")["attempts"])


def sent_offline(page: Page, address: str) -> set[str]:
    """Send every form of a page with the network off, and return their actions."""
    page.goto(address)
    ready(page)
    page.context.set_offline(True)
    failed, actions = page.evaluate(SEND_ALL, SAYS)
    page.context.set_offline(False)
    assert not failed, address
    assert page.locator("main").count() == 1, "it left the page"
    return {re.sub(r"^/topics/[^/]+/[^/]+", "/topics/{}", action) for action in actions}


def every_action() -> set[str]:
    """The actions of all forms of the templates that change something."""
    texts = [re.findall(r"<form [^>]*method=\"post\"[^>]*>", path.read_text()) for path in TEMPLATES.rglob("*.html")]
    actions = {found[1] if (found := re.search(r'action="([^"]*)"', form)) else "" for forms in texts for form in forms}
    return {re.sub(r"^/topics/[^/]+/[^/]+", "/topics/{}", action.split("#")[0]) for action in actions}


def test_every_form_of_a_studio_of_ones_own(page: Page) -> None:
    met = set()
    page.goto("/items/scale-of-logits")
    page.get_by_text("16.0").click()
    page.get_by_role("button", name="Answer").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Not right")
    answered = page.url
    page.goto(f"{TOPIC}/recall")
    page.get_by_role("button", name="Show the answer").click()
    turned = page.url
    page.get_by_role("button", name="Good").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    graded = page.url
    items = [f"/items/{item}" for item in sample.library().items]
    for address in ("/", "/settings", "/project", f"{TOPIC}/try", answered, turned, graded, "/interview", *items):
        met |= sent_offline(page, address)
    theirs = {"/login", "/logout", "", "/settings/password", "/token", "{{ address }}"}  # the test below, or by hand
    theirs |= {"/topics/{}/{{ mode }}/run"}  # sent by live.js, which says so itself
    assert every_action() - theirs - {action.split("#")[0] for action in met} == set()
    assert count(page) == 2


def test_an_answer_is_kept_and_counts_once_when_it_is_sent_again(page: Page) -> None:
    page.goto("/items/scale-of-logits")
    ready(page)
    page.get_by_text("16.0").click()
    page.context.set_offline(True)
    page.get_by_role("button", name="Answer").first.click()
    expect(page.get_by_role("alert")).to_contain_text(SAYS)
    expect(page.locator("label", has_text="16.0").locator("input")).to_be_checked()
    page.keyboard.press("h")  # a hint is asked of the studio too
    expect(page.get_by_role("alert")).to_contain_text(SAYS)
    page.context.set_offline(False)

    def lose_the_answer(route: Route) -> None:
        route.fetch(max_redirects=0)
        route.abort("internetdisconnected")

    page.route("**/answer", lose_the_answer, times=1)
    page.get_by_role("button", name="Answer").first.click()
    expect(page.get_by_role("alert")).to_contain_text(SAYS)
    assert count(page) == 1
    page.get_by_role("button", name="Answer").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Not right")
    assert count(page) == 1


def test_a_form_that_the_studio_refuses_shows_the_studios_page(page: Page) -> None:
    page.goto(f"{TOPIC}/practice")
    ready(page)
    page.get_by_text("16.0").click()
    page.evaluate("document.querySelector('#question [name=csrf]').value = 'old'")
    page.get_by_role("button", name="Answer").first.click()
    expect(page.get_by_text("This form is too old or comes from elsewhere.")).to_be_visible()


def test_a_search_that_finds_no_studio_says_so(page: Page) -> None:
    page.goto("/search")
    ready(page)
    page.context.set_offline(True)
    page.locator("#q").press_sequentially("soft")
    expect(page.locator("#results")).to_contain_text("Is the studio still running?")


class TestShared:
    """The forms of accounts."""

    @pytest.fixture
    def address(self, tmp_path: Path) -> Iterator[str]:
        yield from serve(tmp_path, sample.library(), Settings(data=tmp_path, accounts=True))

    def test_the_forms_of_accounts(self, page: Page, tmp_path: Path) -> None:
        with open_users(tmp_path, None) as users:
            invitation = f"/join/{users.accounts.add('Ada')}"
        assert sent_offline(page, "/login") == {"/login"}
        assert sent_offline(page, invitation) == {invitation}
        page.locator("#password").fill(WORD)
        page.locator("#again").fill(WORD)
        page.locator("main button").click()
        expect(page.get_by_role("button", name="Log out")).to_be_visible()
        assert sent_offline(page, "/settings/password") == {"/settings/password", "/logout"}
