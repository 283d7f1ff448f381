"""One journey of twelve steps, the same in Chromium, Firefox and WebKit: `make test-browsers`. test_journey.py is in `make test`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from browser.conftest import serve
from browser.engines import ENGINES, Chromium, Engine, Missing
from chromium import CHROME
from clearhead import sandbox
from clearhead.course import KINDS
from clearhead.studio.library.library import Library, fill
from clearhead.studio.web import rendering
from clearhead.studio.web.settings import Settings

PACK = Path(__file__).parents[2] / "packs" / "good"
TOPIC = "/topics/attention/basics"
pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be run here: {sandbox.explain()}"),
]

_SIDEWAYS = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
_NUMBERS = "() => [...document.querySelectorAll('.welcome-figure .number')].map((one) => one.textContent).join(' ')"
# How far the ink of a formula's first bracket stands from its box: hanging punctuation would put it outside.
_HANGS = """() => [...document.querySelectorAll("pre, math")]
  .filter((one) => !["", "none", undefined].includes(getComputedStyle(one).hangingPunctuation)).length"""
_LIGHT = """() => {
  const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number);
  const ink = getComputedStyle(document.body).color.match(/[\\d.]+/g).map(Number);
  return Math.min(r, g, b) > 200 && Math.max(...ink.slice(0, 3)) < 90;
}"""
# Fill in whatever a question asks for; what is filled in matters to no step.
_ANSWER = """() => {
  const form = document.getElementById("question");
  const set = (one, value) => { one.value = value; one.dispatchEvent(new Event("input", { bubbles: true })); };
  for (const one of form.querySelectorAll("textarea")) set(one, one.id === "program" ? one.value + "\\n# mine" : "17 and 19");
  for (const one of form.querySelectorAll(".match select")) set(one, one.options[1].value);
  form.querySelector("[name=response]")?.click();
}"""
# What is filled in, whatever letters it stands under.
_FILLED = """() => [...document.querySelectorAll("#question :is(textarea, select)")].map((one) => {
  const row = one.closest(".place")?.querySelector(".text").textContent ?? one.name;
  return `${row}: ${one.selectedOptions?.[0].dataset.means ?? one.value}`;
}).sort()"""
_TABLES = """() => ({
  heads: document.querySelectorAll("[data-matrix^=weights-]").length,
  chosen: Number(document.querySelector("[name=heads]:checked").value),
  causal: document.querySelector("[name=causal]").checked,
  masked: document.querySelectorAll("[data-matrix=logits-0] .masked").length,
})"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The pack under the id of the shipped one, for a figure to drag at the first visit, with a walk and an experiment."""
    proved = fill([PACK], tmp_path_factory.mktemp("proofs"))
    pages = {("attention", *rest): text for (_, *rest), text in proved.pages.items()}
    topics = tuple(replace(topic, walk="heads", experiments=("hard",)) for topic in proved.packs[0].topics)
    return replace(proved, packs=(replace(proved.packs[0], id="attention", topics=topics),), pages=pages)


@contextmanager
def opened(
    request: pytest.FixtureRequest, data: Path, library: Library, settings: Settings | None = None
) -> Iterator[Engine]:
    """A window of the engine that is the parameter of this fixture, before a fresh studio; skips where it is missing."""
    if request.param is Chromium and CHROME is None:
        pytest.skip("chromium: not installed")
    served = serve(data, library, settings)
    address = next(served)
    more = [request.getfixturevalue("browser")] if request.param is Chromium else []
    try:
        window = request.param(address, *more)
    except Missing as problem:
        next(served, None)
        pytest.skip(str(problem))
    yield window
    window.close()
    next(served, None)


@pytest.fixture(autouse=True)
def plain_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs are typed into the field itself, with and without a built editor (test_modes.py has the editor)."""
    monkeypatch.setattr(rendering, "EDITOR", Path("none"))


@pytest.fixture(params=[pytest.param(one, id=one.name) for one in ENGINES])
def engine(request: pytest.FixtureRequest, library: Library, tmp_path: Path) -> Iterator[Engine]:
    with opened(request, tmp_path, library) as window:
        yield window


def test_the_journey_of_twelve_steps(engine: Engine, library: Library) -> None:
    failed: dict[str, str] = {}
    for step in (
        first_figure,
        formulas,
        an_answer_of_each_form,
        back_after_an_answer,
        a_hint,
        try_and_back,
        experiment,
        build_with_a_reload,
        walk_and_back,
        lens,
        notes_and_settings,
        printed_in_the_dark,
    ):
        try:
            step(engine, library)
        except AssertionError as problem:
            failed[step.__name__] = str(problem).splitlines()[0][:200]
    assert not failed, failed


def first_figure(engine: Engine, _: Library) -> None:
    """1. The query is dragged: the weights follow, and no text is selected."""
    engine.open("/")
    before = engine.evaluate(_NUMBERS)
    x, y = engine.where(".welcome-figure .handle")
    engine.point((x, y), (x - 40, y + 60), (x - 90, y + 120))
    engine.wait(
        "(before) => [...document.querySelectorAll('.welcome-figure .number')].map((one) => one.textContent).join(' ') !== before",
        before,
    )
    assert engine.evaluate("() => String(getSelection())") == ""


def formulas(engine: Engine, _: Library) -> None:
    """2. A page of text on a phone: our math font, nothing hangs, nothing scrolls sideways."""
    engine.open(f"{TOPIC}/read")
    assert engine.evaluate("() => document.fonts.load('16px \"STIX Two Math\"').then((found) => found.length)") == 1
    assert engine.evaluate(_HANGS) == 0
    engine.resize(390, 800)
    assert engine.evaluate(_SIDEWAYS) <= 0
    engine.resize(1200, 900)


def answer(engine: Engine) -> None:
    engine.evaluate(_ANSWER)
    engine.leave("button.main")
    if engine.has("Compare", "h1"):
        engine.leave("button.main")


def an_answer_of_each_form(engine: Engine, library: Library) -> None:
    """3. Every kind of question is answered, and the answer's page can be loaded again without being sent again."""
    for kind in KINDS:
        item = next(one.id for one in library.items.values() if one.kind == kind)
        engine.open(f"/items/{item}")
        if kind == "card":
            engine.leave("button.main")
            engine.leave("button", "Again")
            engine.sees("Saved.")
        else:
            answer(engine)
            engine.sees("", "h1.verdict")
        engine.again(engine.reload)
        assert engine.has("Saved.") if kind == "card" else engine.has("", "h1.verdict")


def back_after_an_answer(engine: Engine, library: Library) -> None:
    """4. Back shows the question as it was answered; another answer to it is not taken, and that is said."""
    for kind in ("choice", "explain", "order"):
        item = next(one.id for one in library.items.values() if one.kind == kind)
        engine.open(f"/items/{item}")
        engine.evaluate(_ANSWER)
        engine.leave("button.main")
        engine.again(engine.back)
        assert engine.evaluate("() => Boolean(document.getElementById('question'))"), kind
        if kind == "explain":
            assert engine.value("#text") == "17 and 19"
            answer(engine)
            engine.again(engine.back)
            engine.again(engine.back)
        answer(engine)
        engine.sees("You had answered this question already")


def a_hint(engine: Engine, library: Library) -> None:
    """5. A hint leaves what was chosen; a reload leaves what was typed and put in order."""
    item = next(
        one.id for one in library.items.values() if library.proved[one.id].hints and one.kind in ("predict", "choice")
    )
    engine.open(f"/items/{item}")
    engine.click(".options label")
    chosen = engine.evaluate("() => document.querySelector('.options label:has(:checked) .text').textContent")
    engine.click("[name=hint]")
    engine.sees("", ".hints li")
    assert engine.evaluate("() => document.querySelector('.options label:has(:checked) .text')?.textContent") == chosen
    for kind in ("worked", "explain", "order", "match"):
        engine.open(f"/items/{next(one.id for one in library.items.values() if one.kind == kind)}")
        engine.evaluate(_ANSWER)
        if kind == "order":
            engine.click(".order li:first-child [data-by='1']")
        before = engine.evaluate(_FILLED)
        engine.again(engine.reload)
        assert engine.evaluate(_FILLED) == before, kind


def try_and_back(engine: Engine, _: Library) -> None:
    """6. A program is predicted and run; Back shows the prediction, and the run has an address of its own."""
    engine.open(f"{TOPIC}/try")
    engine.type("#prediction", "[5, 6]")
    engine.press_and_leave("Control+Enter")
    engine.sees("", ".outcome .verdict")
    engine.type("#program", "print(6 * 7)")
    engine.again(engine.reload)
    assert engine.value("#program") == "print(6 * 7)"
    engine.leave("button.main")
    engine.sees("42", ".outcome pre")
    engine.again(engine.back)
    engine.again(engine.back)
    assert engine.value("#prediction") == "[5, 6]"


def experiment(engine: Engine, _: Library) -> None:
    """7. A measurement comes in point by point."""
    engine.open(f"{TOPIC}/experiment?name=hard")
    engine.click("button.main")
    engine.sees("Done.", "[role=status]")
    assert engine.evaluate("() => document.querySelectorAll('.curves svg').length") > 0


def build_with_a_reload(engine: Engine, _: Library) -> None:
    """8. A program that is not sent yet outlives another page and a reload; Start over gives the given one back."""
    engine.open(f"{TOPIC}/build")
    engine.type("#program", "def mean(values): # mine")
    engine.leave(".tabs a", "Read")
    engine.leave(".tabs a", "Build")
    assert engine.value("#program") == "def mean(values): # mine"
    engine.again(engine.reload)
    assert engine.value("#program") == "def mean(values): # mine"
    engine.leave("[data-forget]", "Start over")
    assert engine.value("#program").strip() == "def mean(xs): ..."
    engine.type("#program", "def mean(values): return 0")
    engine.press_and_leave("Control+Enter")
    engine.sees("Not there yet", "h1")
    engine.open(f"{TOPIC}/build")
    assert engine.value("#program") == "def mean(values): return 0"


def walk_and_back(engine: Engine, _: Library) -> None:
    """9. What the controls say, the tables show, after Back too; what is no number is said."""
    engine.open(f"{TOPIC}/walk")
    engine.click("[data-matrix=weights-1] td[data-i]")
    engine.click("[name=heads][value='4']")
    engine.wait("() => document.querySelectorAll('[data-matrix^=weights-]').length === 4")
    assert not engine.has("e^", ".walk-says"), "a sentence about a table that is gone"
    engine.click("[name=causal]")
    engine.type("[name='q-0-0']", "-2,5")
    engine.sees("−2.50", "[data-matrix=logits-0]") if engine.has("−2.50") else None
    engine.type("[name='q-1-1']", "3.5x")
    engine.sees("“3.5x” is not a number", ".walk-says")
    engine.leave(".tabs a", "Read")
    engine.again(engine.back)
    engine.wait(
        f"() => {{ const now = ({_TABLES})(); return now.heads === now.chosen && (now.masked > 0) === now.causal; }}"
    )
    assert engine.value("[name='q-0-0']") == "-2,5"
    assert engine.evaluate(_TABLES)["chosen"] == 4
    engine.type("[name='q-1-1']", "7")
    engine.wait("() => document.querySelector('[name=\"q-1-1\"]').getAttribute('aria-invalid') === null")


def lens(engine: Engine, _: Library) -> None:
    """10. A real model; a head is opened by pointer and closed by Escape, and the focus shows."""
    engine.open("/lens")
    engine.click("[role=gridcell]")
    engine.sees("", ".ch-head h2")
    engine.keys("Escape")
    engine.wait("() => document.activeElement.matches('.ch-cell')")
    assert engine.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert engine.evaluate(_SIDEWAYS) <= 0
    engine.type("#lens-text", "a text that nobody has read yet")
    engine.again(engine.reload)
    assert engine.value("#lens-text") == "a text that nobody has read yet"


def notes_and_settings(engine: Engine, library: Library) -> None:
    """11. A note and a setting that are not kept yet come back after a reload; kept, they stay as they are."""
    item = next(one.id for one in library.items.values() if one.kind == "choice")
    engine.open(f"/items/{item}")
    answer(engine)
    engine.evaluate("() => { document.getElementById('note').open = true }")
    engine.type("#note textarea", "mind the root")
    engine.again(engine.reload)
    assert engine.value("#note textarea") == "mind the root"
    engine.open("/settings")
    engine.click("[name=theme][value=dark]")
    engine.again(engine.reload)
    assert engine.evaluate("() => document.querySelector('[name=theme]:checked').value") == "dark"
    engine.leave("button.main")
    engine.sees("Saved.")


def printed_in_the_dark(engine: Engine, _: Library) -> None:
    """12. The dark theme prints dark on light, without the menus."""
    engine.open(f"{TOPIC}/read")
    assert not engine.evaluate(_LIGHT)
    engine.print()
    assert engine.evaluate(_LIGHT)
    assert engine.evaluate(
        "() => [...document.querySelectorAll('.tabs, .top, .foot, button')].every((one) => !one.getClientRects().length)"
    )


def test_the_lens_that_writes(engine: Engine) -> None:
    """An answer is written, one of its tokens looked into, and a head's reason drawn, within the window."""
    engine.open("/lens/write?prompt=the+lighthouse+keeper+wrote:+the+ligh&model=induction&count=5")
    engine.wait("() => document.getElementById('write-view').getAttribute('aria-busy') === 'false'")
    engine.click(".write-token:not(.write-prompt)")
    engine.sees("“t” was written from", ".write-aside")
    engine.click(".write-why")
    engine.click(".write-chosen button")
    engine.sees("the logit is", ".write-reasons")
    assert engine.evaluate(_SIDEWAYS) <= 0
    engine.resize(390, 844)
    assert engine.evaluate(_SIDEWAYS) <= 0
    engine.print()
    shown = "(selector) => [...document.querySelectorAll(selector)].some((one) => one.checkVisibility())"
    assert engine.evaluate(shown, ".write-candidate")
    assert not engine.evaluate(shown, ".lens-form, .write-save")
