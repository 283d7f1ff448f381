"""The shipped course in a browser: all ten modes of one topic, the pages of every other, wide and narrow, with axe."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from browser.conftest import serve
from browser.learn.test_journey import ready
from browser.learn.test_keys import Hands
from browser.looking import cut, everything, findings
from browser.test_access import PHONE
from clearhead import course, sandbox
from clearhead.course import Item, Pack, Topic, prove_pack
from clearhead.sandbox.processes import pool
from clearhead.studio.library.library import Library
from clearhead.studio.questions.question import FORMS

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be proved here: {sandbox.explain()}")

FULL = "self-and-multi-head"
TOPIC = f"/topics/attention/{FULL}"
WIDE = {"viewport": {"width": 1280, "height": 800}}
EVERY_PAGE = pytest.mark.parametrize(
    "every", [False, pytest.param(True, marks=pytest.mark.stress)], ids=["some", "all"]
)


def others(pack: Pack, *, wide: bool, every: bool) -> list[Topic]:
    """The topics but FULL that are looked at in one of two widths: all between them, or a tenth."""
    topics = [topic for topic in pack.topics if topic.id != FULL]
    return topics[not wide :: 2 if every else 20]


def chosen(pack: Pack, every: bool) -> Pack:
    """The pack with few items, so that they are proved in seconds: of one topic each kind, of those visited one."""
    visited = {topic.id for wide in (True, False) for topic in others(pack, wide=wide, every=every)}

    def some(topic: str) -> list[Item]:
        items = list(pack.items_of(topic))
        if topic == FULL:
            kinds = [next((item for item in items if item.kind == kind), None) for kind in FORMS]
            more = [item for item in items if item.kind in ("choice", "predict", "debug")][: 7 if every else 2]
            return [*filter(None, kinds), *more, pack.items["write-the-class"]]
        if topic not in visited:
            return []
        return [next(item for item in items if item.kind == "choice")]

    keep = {item.id for topic in pack.topics for item in some(topic.id)}
    topics = tuple(replace(topic, challenges=()) for topic in pack.topics)
    return replace(pack, items={id: item for id, item in pack.items.items() if id in keep}, topics=topics)


@pytest.fixture(scope="module")
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Library:
    every = any(item.get_closest_marker("stress") and item.path == request.path for item in request.session.items)
    pack = chosen(course.load(next(path for path in course.shipped() if path.name == "attention")), every)
    # This folder has a package `kernels`, which Transformers would take for the library of that name.
    tests = Path(__file__).parents[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys, "path", [path for path in sys.path if not path or tests not in (Path(path), *Path(path).parents)]
        )
        pool.close_all()
        outcomes = prove_pack(pack, cache=tmp_path_factory.mktemp("proofs"), jobs=2)
    pool.close_all()
    assert [outcome.error for outcome in outcomes if not outcome.ok] == []
    return Library((pack,), {outcome.item_id: outcome.proved for outcome in outcomes if outcome.proved})


@pytest.fixture
def address(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from serve(tmp_path_factory.mktemp("data"), library)


class Walker:
    """Goes from page to page, and looks at each as somebody would who cannot see it, or sees it dark, small or large."""

    def __init__(self, page: Page, *, every: bool) -> None:
        self.page = page
        self.wrong: dict[str, list[str]] = {}
        self._wide = bool(page.viewport_size and page.viewport_size["width"] > 800)
        self._every = every
        self._pages = 0

    def look(self, name: str = "") -> None:
        """Note whatever is wrong with the page as it is now: each is measured, and a fifth also by axe, dark and large."""
        found = cut(self.page)
        if self._every or self._pages % 5 == 0:
            found = everything(self.page) if self._wide else findings(self.page) + found
        self._pages += 1
        if found:
            self.wrong[name or self.page.url] = found

    def go(self, address: str) -> None:
        self.page.goto(address)
        self.page.locator("html.scripted").wait_for()
        self.look()

    def mode(self, name: str) -> None:
        """To another mode of the same topic, by its link."""
        self.leave(self.page.get_by_role("navigation", name="Modes").get_by_role("link", name=name, exact=True))
        self.look(name)

    def leave(self, control: Locator) -> None:
        """Click what leads to another page, and wait for that one: the page that is left is scripted too."""
        with self.page.expect_navigation():
            control.click()
        self.page.locator("html.scripted").wait_for()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name).first.click()

    def answer(self) -> None:
        """Answer whatever is asked, right or wrong."""
        options, typed = self.page.locator("input[name=response]"), self.page.locator("textarea.code.line")
        if options.count():
            options.first.check()
        for field in typed.all():
            field.fill("1")
        for row in self.page.locator("select[name^=pair-]").all():
            row.select_option(index=1)
        self.leave(self.page.get_by_role("button", name="Answer").first)


@pytest.fixture
def walker(page: Page, request: pytest.FixtureRequest) -> Walker:
    return Walker(page, every="every" not in request.fixturenames or request.getfixturevalue("every"))


@EVERY_PAGE
@pytest.mark.parametrize("look", [WIDE], indirect=True, ids=["wide"])
def test_all_ten_modes_of_a_topic(page: Page, walker: Walker, every: bool) -> None:
    walker.go("/")
    walker.go(TOPIC)
    page.get_by_role("link", name="Read", exact=False).first.click()
    expect(page.locator("math").first).to_be_visible()
    walker.look("Read")
    walker.mode("Why")
    walker.mode("Walk")
    page.get_by_label("Q, row 1, column 1").fill("3")
    walker.mode("Try")
    page.get_by_label("It will print").fill("nothing of the sort")
    walker.press("Run it")
    expect(page.get_by_text("Not what you said")).to_be_visible()
    walker.look("Try, run")
    walker.mode("Sheet")
    walker.mode("Recall")
    page.keyboard.press("Space")
    expect(page.locator(".card-back")).to_be_visible()
    walker.look("Recall, turned")
    walker.mode("Practice") if page.get_by_role("navigation", name="Modes").count() else walker.go(f"{TOPIC}/practice")
    walker.answer()
    expect(page.get_by_text("The rule").first).to_be_visible()
    walker.look("Practice, answered")
    walker.go(f"{TOPIC}/challenge")
    page.get_by_label("off", exact=True).check()
    walker.leave(page.get_by_role("button", name="Begin").first)
    walker.look("Challenge, begun")
    walker.answer()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    walker.go(f"{TOPIC}/experiment?name=hard")
    walker.go("/items/write-the-class?mode=build")
    walker.mode("Test")
    walker.leave(page.get_by_role("link", name="Begin"))
    walker.answer()
    walker.look("Test, begun")
    assert not walker.wrong


@pytest.mark.stress
@pytest.mark.parametrize("look", [WIDE], indirect=True, ids=["wide"])
def test_an_experiment_a_class_in_a_real_model_and_a_whole_test(page: Page, walker: Walker, library: Library) -> None:
    walker.go(f"{TOPIC}/experiment?name=hard")
    walker.press("Measure it here")
    expect(page.locator("form [role=status]")).to_have_text("Done.", timeout=300_000)
    walker.look("Experiment, measured")
    walker.go("/items/write-the-class?mode=build")
    page.get_by_role("textbox", name="Your program").fill(library.proved["write-the-class"].solution)
    walker.press("Run the tests")
    page.get_by_role("link", name="See your class in a real model").click(timeout=300_000)
    expect(page.get_by_text("differ from the model’s own")).to_be_visible(timeout=300_000)
    expect(page.locator(".embed .ch").first).to_be_visible(timeout=300_000)
    walker.look("Build, in a real model")
    walker.mode("Test")
    walker.leave(page.get_by_role("link", name="Begin"))
    for _ in range(10):
        walker.answer()
    expect(page.get_by_role("heading", level=1)).to_contain_text("of 10 right")
    walker.look("Test, done")
    assert not walker.wrong


@pytest.mark.stress  # in the full tier `test_the_other_topics[narrow-some]` and every page laid out (test_access.py)
@EVERY_PAGE
@pytest.mark.parametrize("look", [PHONE], indirect=True, ids=["narrow"])
def test_all_ten_modes_on_a_phone(page: Page, walker: Walker, every: bool) -> None:
    walker.go(TOPIC)
    for mode in (
        "read",
        "why",
        "walk",
        "try",
        "sheet",
        "recall",
        "practice",
        "challenge",
        "experiment",
        "build",
        "test",
    ):
        walker.go(f"{TOPIC}/{mode}")
    walker.go(f"{TOPIC}/practice")
    walker.answer()
    walker.look("answered")
    walker.go("/items/order-of-attention")
    assert not walker.wrong


@EVERY_PAGE
@pytest.mark.parametrize("look", [WIDE, PHONE], indirect=True, ids=["wide", "narrow"])
def test_the_other_topics(page: Page, walker: Walker, library: Library, look: dict[str, object], every: bool) -> None:
    for topic in others(library.packs[0], wide=look is WIDE, every=every):
        here = f"/topics/attention/{topic.id}"
        walker.go(f"{here}/read")
        if "recall" in topic.pages and look is WIDE:
            walker.go(f"{here}/sheet")
        walker.go(f"{here}/practice")
        walker.answer()
        expect(page.get_by_text("The rule").first).to_be_visible()
    if look is WIDE or every:
        walker.go("/topics/attention/a-real-model/walk")
        page.locator(".embed").first.scroll_into_view_if_needed()
        expect(page.locator(".embed .ch").first).to_be_visible(timeout=300_000)  # a real model is loaded for this
        walker.look("the tour")
    assert not walker.wrong


# Calm, so that the page has scrolled to what has the focus once it has it.
@pytest.mark.stress  # in the full tier `test_by_keyboard_alone` and tests/browser/learn/test_keys.py
@pytest.mark.parametrize("look", [{**WIDE, "reduced_motion": "reduce"}], indirect=True, ids=["wide"])
def test_ten_modes_with_a_keyboard_alone(page: Page) -> None:
    hands = Hands(page)
    page.goto(TOPIC)
    hands.open("Read")
    hands.open("Why")
    hands.open("Walk")
    hands.tab_to("Q, row 1, column 1")
    page.keyboard.type("3")
    hands.tab_to("1.")  # the first number that follows from it
    page.keyboard.press("ArrowRight")
    expect(page.locator(".walk-says")).to_contain_text("=")
    page.goto(f"{TOPIC}/walk")
    hands.open("Try")
    hands.tab_to("It will print")
    page.keyboard.type("nothing of the sort")
    with page.expect_navigation():
        page.keyboard.press("Control+Enter")
    expect(page.get_by_text("Not what you said")).to_be_visible()
    hands.open("Sheet")
    hands.open("Recall")
    with page.expect_navigation():
        hands.press("Space")
    expect(page.locator(".card-back")).to_be_visible()
    with page.expect_navigation():
        hands.press("1")
    hands.open("Practice")
    answer_by_keys(hands)
    page.goto(TOPIC)
    hands.open("Challenge")
    with page.expect_navigation():
        hands.press("Enter")
    answer_by_keys(hands)
    page.goto(TOPIC)
    hands.open("Experiment")
    hands.tab_to("Width of the layer")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("Width of the layer: 256")).to_be_visible()
    hands.tab_to("fall")
    page.keyboard.press("Space")
    expect(page.locator("input[name=guess]:checked")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.locator("form [role=status]")).not_to_be_empty()
    page.goto(TOPIC)
    hands.open("Build")
    hands.press("Escape")  # the program has the focus on arrival, and Tab indents in it
    hands.tab_to("Your program")
    page.keyboard.press("End")
    page.keyboard.type("  # mine")
    with page.expect_navigation(timeout=300_000):
        page.keyboard.press("Control+Enter")
    expect(page.get_by_role("heading", name="Not there yet")).to_be_visible()
    page.goto(TOPIC)
    hands.open("Test")
    with page.expect_navigation():
        hands.press("Enter")
    answer_by_keys(hands)
    expect(page.get_by_text("question 2 of")).to_be_visible()
    assert not hands.wrong


def answer_by_keys(hands: Hands) -> None:
    """Answer whatever is asked, right or wrong, without a pointer."""
    page = hands.page
    ready(page)
    for field in page.locator("#question").locator("textarea, select[required]").all():
        hands.tab_to(field.evaluate("it => (it.labels[0]?.textContent ?? it.getAttribute('aria-label') ?? '').trim()"))
        if field.evaluate("it => it.matches('select')"):
            page.keyboard.press("ArrowDown")
        else:
            page.keyboard.press("End")
            page.keyboard.type("  # 1")
    if page.locator("input[name=response]").count():
        hands.press("a")
    key = page.locator("#question button.main").first.get_attribute("data-key") or ""
    with page.expect_navigation(timeout=300_000):
        hands.press(key.partition(" ")[0])
