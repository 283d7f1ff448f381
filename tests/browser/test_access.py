"""Every page, light and dark: no serious finding of axe, nothing wider than the window."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

TOPIC = "/topics/attention/one-head"
PAGES = [
    "/",
    TOPIC,
    f"{TOPIC}/read",
    f"{TOPIC}/practice",
    f"{TOPIC}/recall",
    f"{TOPIC}/walk?causal=1",
    f"{TOPIC}/test",
    f"{TOPIC}/challenge",
    f"{TOPIC}/try",
    f"{TOPIC}/mistakes",
    f"{TOPIC}/practice?focus=hard",
    f"{TOPIC}/experiment?name=scale&run=true",
    "/items/which-hold",
    "/review",
    "/progress",
    "/search?q=softmax",
    "/settings",
    "/offline",
    "/nope",
    "/lens",
]


def findings(page: Page, dark: bool) -> list[str]:
    """Serious and critical findings of axe, in one line each; the dark pages differ in their colours alone."""
    page.wait_for_load_state("load")  # its styles too
    options = {"runOnly": ["color-contrast"]} if dark else None
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{one['id']}: {node['html'][:120]} {node['failureSummary']}"
        for one in found
        for node in one["nodes"]
        if one["impact"] in ("serious", "critical")
    ]


def answered(page: Page, text: str) -> None:
    page.goto("/items/scale-of-logits")
    page.get_by_text(text).last.click()
    page.get_by_role("button", name="Answer").first.click()
    page.get_by_role("heading", level=1).wait_for()


@pytest.mark.parametrize("look", [{"color_scheme": scheme} for scheme in ("light", "dark")], indirect=True, ids=str)
def test_no_page_has_a_serious_finding(page: Page, look: dict[str, object]) -> None:
    wrong, dark = {}, look["color_scheme"] == "dark"
    for address in PAGES:
        page.goto(address)
        wrong[address] = findings(page, dark)
    page.goto(f"{TOPIC}/recall")
    page.keyboard.press("Space")
    page.locator(".card-back").wait_for()
    wrong["card turned"] = findings(page, dark)
    for text in ("16.0", "4.0"):
        answered(page, text)
        for details in page.locator("details").all():
            details.evaluate("it => it.open = true")
        wrong[f"answered {text}"] = findings(page, dark)
    page.goto("/")
    wrong["home, later"] = findings(page, dark)
    page.keyboard.press("?")
    wrong["keys"] = findings(page, dark)
    assert not {where: found for where, found in wrong.items() if found}


@pytest.mark.parametrize("look", [{"viewport": {"width": 390, "height": 800}}], indirect=True, ids=str)
def test_nothing_is_wider_than_a_phone(page: Page) -> None:
    wide = []
    for address in PAGES:
        page.goto(address)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(address)
    answered(page, "16.0")
    if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        wide.append("answered")
    assert not wide
