"""Next with one key, single-letter keys switched off, and search while typing."""

import re

import pytest
from playwright.sync_api import Page, expect

from browser.learn.test_journey import ready
from browser.looking import everything

TOPIC = "/topics/attention/one-head"


def test_n_leads_on(page: Page) -> None:
    page.goto(f"{TOPIC}/read")
    ready(page)
    page.keyboard.press("n")
    expect(page).to_have_url(re.compile(f"{TOPIC}/walk"))
    ready(page)
    page.keyboard.press("n")
    expect(page).to_have_url(re.compile("mode=path"))


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.stress)], ids=["some", "all"])
def test_the_pages_of_the_path_look_right(page: Page, every: bool) -> None:
    for address in ("/", TOPIC, "/map", "/project", "/certificate", "/interview") if every else ("/map", "/project"):
        page.goto(address)
        assert everything(page) == [], address


def test_no_letter_is_a_shortcut_while_one_types_or_with_keys_off(page: Page) -> None:
    page.goto("/project")
    ready(page)
    page.locator("#predicted").press_sequentially("nine")
    expect(page.locator("#predicted")).to_have_value("nine")
    expect(page).to_have_url(re.compile("/project$"))
    page.goto("/settings")
    page.locator("[name=keys][value=off]").check()
    page.get_by_role("button", name="Save").click()
    expect(page.locator("html")).to_have_attribute("data-keys", "off")
    page.goto(f"{TOPIC}/read")
    ready(page)
    page.keyboard.press("n")
    page.keyboard.press("/")
    page.wait_for_timeout(300)
    expect(page).to_have_url(re.compile("/read$"))


def test_search_answers_as_one_types_and_arrows_walk_its_results(page: Page) -> None:
    page.goto("/search")
    ready(page)
    page.locator("#q").press_sequentially("sofmax")
    expect(page.get_by_text("Results shown instead")).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#results .hit a").first).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/topics/|/items/"))
