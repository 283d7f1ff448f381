"""Every page: no serious finding of axe, nothing too faint or white in the dark, nothing cut on a phone or at 200 %."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from browser.conftest import serve
from browser.looking import cut, everything, small
from clearhead import sandbox
from clearhead.studio.accounts.accounts import Accounts
from clearhead.studio.learner.database import Database
from clearhead.studio.web.context import secret_in
from clearhead.studio.web.settings import Settings
from studio import sample

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
PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}


def answered(page: Page, text: str) -> None:
    page.goto("/items/scale-of-logits")
    page.get_by_text(text).last.click()
    with page.expect_navigation():
        page.get_by_role("button", name="Answer").first.click()


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.stress)], ids=["some", "all"])
def test_every_page_can_be_read_by_everybody(page: Page, every: bool) -> None:
    wrong = {}
    for address in PAGES if every else PAGES[1::5]:
        page.goto(address)
        wrong[address] = everything(page)
    page.goto(f"{TOPIC}/recall")
    page.keyboard.press("Space")
    page.locator(".card-back").wait_for()
    wrong["card turned"] = everything(page)
    for text in ("16.0", "4.0") if every else ("16.0",):
        answered(page, text)
        for details in page.locator("details").all():
            details.evaluate("it => it.open = true")
        wrong[f"answered {text}"] = everything(page)
    for address in ("/", "/progress", f"{TOPIC}/mistakes") if every else ():
        page.goto(address)
        wrong[f"{address}, later"] = everything(page)
    page.goto("/")
    page.locator("html.scripted").wait_for()
    page.keyboard.press("?")
    wrong["keys"] = everything(page)
    assert not {where: found for where, found in wrong.items() if found}


@pytest.mark.parametrize("look", [PHONE], indirect=True, ids=["phone"])
def test_nothing_is_wider_than_a_phone_or_smaller_than_a_finger(page: Page) -> None:
    wide = {}
    for address in PAGES:
        page.goto(address)
        wide[address] = cut(page) + small(page)
    answered(page, "16.0")
    wide["answered"] = cut(page)
    assert not {where: found for where, found in wide.items() if found}


@pytest.mark.parametrize("look", [PHONE], indirect=True, ids=["phone"])
def test_the_concepts_of_progress_fit_a_phone(page: Page) -> None:
    answered(page, "16.0")
    page.goto("/progress")
    page.locator(".by-concept tbody tr").first.evaluate("""(row) => {
      row.querySelector("th").textContent = "Concatenation"; row.cells[2].textContent = "learning"; row.cells[3].textContent = "128";
      const [meter, share] = row.querySelector(".share-of").childNodes; share.textContent = " 100 %";
    }""")
    for width in (375, 360, 320):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.locator(".scroll").first.evaluate("it => it.scrollWidth - it.clientWidth") <= 0, width


@pytest.mark.parametrize("look", [PHONE], indirect=True, ids=["phone"])
def test_a_device_without_keys_shows_none(page: Page) -> None:
    for address in ("/", TOPIC, f"{TOPIC}/practice", f"{TOPIC}/recall", f"{TOPIC}/try", f"{TOPIC}/challenge"):
        page.goto(address)
        page.locator("html.scripted").wait_for()
        assert [one.text_content() for one in page.locator("kbd").all() if one.is_visible()] == [], address


@pytest.mark.parametrize("look", [{"forced_colors": "active"}], indirect=True, ids=["system palette"])
def test_with_the_systems_palette_it_shows_what_is_chosen_and_what_a_weight_is(page: Page) -> None:
    """There our backgrounds and shadows are gone: a choice that only they show could not be seen."""
    ground = "(one) => getComputedStyle(one).backgroundColor"
    page.goto("/items/scale-of-logits")
    page.get_by_label("fairly sure").check()
    chosen, *others = (page.locator(".sure label", has_text=text) for text in ("fairly sure", "a guess", "unsure"))
    assert len({one.evaluate(ground) for one in (chosen, *others)}) == 2
    disc = page.locator(".options input").first
    assert (
        disc.evaluate("(one) => getComputedStyle(one, '::before').content") == "none"
    )  # it would cover the system's dot
    page.goto(f"{TOPIC}/walk")
    scale = page.locator(".scale .heat").all()
    assert len({one.evaluate(ground) for one in scale}) == len(scale) == 9


def test_the_looks_see_what_they_should(page: Page) -> None:
    page.goto("/nope")
    page.locator("main").evaluate("""it => it.innerHTML = `<h1>Bad</h1><p class="faint">Too faint to read</p>
      <div class="white">White ground</div><button class="narrow">A button too narrow for its words</button>
      <svg width="60" height="60" class="shape"><rect width="60" height="60" fill="white"/></svg>
      <img src="/static/icon.svg"><p class="wide">Wide</p>`""")
    page.evaluate("""() => {
      const style = new CSSStyleSheet();
      style.replaceSync(`.faint { color: #777 } .white { background: #fff; color: #000 } .wide { width: 50rem; margin: 0 }
        .narrow { width: 4rem; white-space: nowrap; overflow: hidden }`);
      document.adoptedStyleSheets = [style];
    }""")
    found = everything(page)
    for start, holds in (
        ("image-alt", "icon.svg"),
        ("clipped", "narrow"),
        ("dark: color-contrast", "faint"),
        ("dark: white", "White ground"),
        ("dark: white", "rect"),
        ("zoomed: the page is", "px wide"),
        ("large text: the page is", "px wide"),
    ):
        assert any(one.startswith(start) and holds in one for one in found), (start, holds, found)


class Shared:
    """A studio with accounts on this machine, and an invitation to it."""

    def __init__(self, address: str, invitation: str) -> None:
        self.address, self.invitation = address, invitation


@pytest.fixture
def address(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    settings = Settings(data=tmp_path, accounts="shared" in request.fixturenames)
    yield from serve(tmp_path, sample.library(), settings)


@pytest.fixture
def shared(address: str, tmp_path: Path) -> Shared:
    if sandbox.backend() is None:
        pytest.skip(f"a shared studio needs confinement: {sandbox.explain()}")
    database = Database(tmp_path)
    invitation = Accounts(database, secret_in(tmp_path)).add("Ada")
    database.close()
    return Shared(address, invitation)


def test_the_pages_of_a_shared_studio(page: Page, shared: Shared) -> None:
    wrong = {}
    page.goto("/login")
    wrong["log in"] = everything(page)
    page.get_by_label("Name").fill("Ada")
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").wait_for()
    wrong["refused"] = cut(page)
    page.goto(f"/join/{shared.invitation}")
    wrong["join"] = everything(page)
    for label in (re.compile("^Password"), "Repeat the password"):
        page.get_by_label(label).fill("correct horse battery")
    page.get_by_role("button", name="Join").click()
    expect(page.get_by_text("Ada")).to_be_visible()
    wrong["in"] = cut(page)
    assert not {where: found for where, found in wrong.items() if found}
