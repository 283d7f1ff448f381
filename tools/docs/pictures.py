"""Make the screenshots in docs/pictures, which docs/studio.md shows.

`.venv/bin/python tools/docs/pictures.py` starts a studio with an empty store, waits until its answers are computed, and
photographs it; then one in which somebody made up (made_up_learner.py) has practised for five weeks. Names of
pictures after it make those alone; `--at URL` photographs a studio that runs already.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urljoin

from answering import Answerer
from made_up_learner import practise
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from clearhead.studio.learner.database import FILE

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
SENTENCE = "The animal didn't cross the street because it was too tired"
MARY = "When Mary and John went to the store, John gave a drink to"
DEPTH = "/topics/attention/attention-in-depth"
HEADS = "/topics/attention/self-and-multi-head"
MODEL = "/topics/attention/a-real-model"
BROWSERS = ("chromium", "chromium-headless-shell", "google-chrome")
WAIT = 120_000  # ms to wait for results that are computed on demand
FOLDER = tempfile.TemporaryDirectory()  # of the studio that is photographed
ANSWERER = Answerer(Path(FOLDER.name) / "proofs")


def nothing(page: Page) -> None:
    """Leave the page as it is."""


def measured(page: Page) -> None:
    page.locator("pre.output").first.evaluate("it => it.scrollIntoView({ block: 'center' })")


def point(page: Page) -> None:
    page.get_by_label("Q, row 2, column 3").fill("2")
    cell = page.locator('[data-matrix="output-1"] td[data-i="1"][data-j="0"]')
    cell.focus()
    page.locator("#s1").evaluate("it => scrollTo(0, it.offsetTop - 130)")
    page.wait_for_timeout(1500)  # what changed is bold for a moment


def predict(page: Page) -> None:
    page.get_by_label("It will print").fill("[0.5, 0.5]")
    page.get_by_role("button", name="Run it", exact=False).first.click()
    page.get_by_text("The rule").wait_for(timeout=WAIT)


def turn(page: Page) -> None:
    page.get_by_role("button", name="Show the answer").click()
    page.locator(".card-back").wait_for()


def hint(page: Page) -> None:
    page.locator("button[name=hint]").click()
    page.locator(".hints .newest").wait_for()


def miss(page: Page) -> None:
    """Answer wrongly. If the first option happens to be right, go on to another question."""
    studio_at = "/".join(page.url.split("/")[:3])
    for item in ("visible-pairs", "warmer-weights", "scale-of-logits", "doubled-logits", "broken-blocks"):
        page.goto(f"{studio_at}/items/{item}")
        page.locator("#question").wait_for()
        if not page.locator("input[name=response]").count():  # known already, so it is typed
            continue
        page.locator("input[name=response]").first.check()
        page.get_by_role("button", name="Answer", exact=False).first.click()
        page.locator("h1.verdict").wait_for()
        if page.locator("h1.verdict.wrong").count():
            return


def disprove(page: Page) -> None:
    page.locator(".mistakes details").first.evaluate("it => it.open = true")


def days(page: Page) -> None:
    page.locator(".calendar").evaluate("it => scrollTo(0, it.getBoundingClientRect().top + scrollY - 70)")


def begin(page: Page) -> None:
    page.get_by_role("button", name="Begin", exact=False).click()
    page.locator("#question").wait_for()
    page.wait_for_timeout(6000)  # so that the line of the clock has shortened


def measure(page: Page) -> None:
    page.locator("input[name=guess]").last.check()
    page.get_by_role("button", name="Measure it here", exact=False).click()
    page.locator(".found").wait_for(timeout=WAIT)
    page.locator(".found").evaluate("it => scrollTo(0, it.offsetTop - 60)")


def switch_off(page: Page) -> None:
    """Needs the chat model: `clearhead models fetch`."""

    def ready() -> None:
        page.wait_for_timeout(200)
        page.locator("#write-view[aria-busy=false]").wait_for()

    ready()
    answer = page.locator(".write-token:not(.write-prompt)")
    answer.first.click()
    page.get_by_role("button", name="Which heads matter here").click()
    ready()
    page.get_by_role("gridcell", name="Layer 23, head 3:").click()
    ready()
    page.get_by_role("button", name="Switch 23·3 off").click()
    ready()
    answer.first.click()


def solve(page: Page) -> None:
    """Send the published solution, then open it in a real model."""
    item = (ROOT / "src/clearhead/packs/attention/items/write-the-class.md").read_text(encoding="utf-8")
    found = re.search(r"```python solution\n(.*?)```", item, re.DOTALL)
    page.get_by_role("textbox", name="Your program").fill(found[1] if found else "")
    page.get_by_role("button", name="Run the tests", exact=False).click()
    page.get_by_role("link", name="See your class in a real model", exact=False).click(timeout=WAIT)
    page.locator(".embed .ch").first.wait_for(timeout=WAIT)


def sit(page: Page) -> None:
    """Take a whole test like somebody who knows most of it."""
    page.get_by_role("link", name="Begin", exact=False).click()
    for right in (True, True, False, True, True, False, True, True, False, True):
        ANSWERER.answer(page, right=right)
    page.locator(".verdicts").wait_for()


def unfold(page: Page) -> None:
    page.locator("details.at-a-glance summary").first.click()


def guess(page: Page) -> None:
    page.locator(".guess").get_by_role("button", name="street").click()
    page.locator(".guess .word small").first.wait_for(timeout=WAIT)


def stop(page: Page) -> None:
    """Go to the stop of the tour that asks what a pronoun looks at."""
    heading = page.get_by_role("heading", name="Stop 5", exact=False)
    for _ in range(20):
        heading.evaluate("it => scrollTo(0, it.getBoundingClientRect().top + scrollY - 20)")
        page.wait_for_timeout(300)
    page.locator(".embed .ch").nth(4).wait_for(timeout=WAIT)
    heading.evaluate("it => scrollTo(0, it.getBoundingClientRect().top + scrollY - 20)")


@dataclass(frozen=True)
class Picture:
    """One picture: its address, what to do there first, and its looks besides light and wide.

    `ready` must be on the page before anything is done; `whole` takes the page from top to bottom; `practised` uses the
    learner with weeks of practice.
    """

    path: str
    act: Callable[[Page], None] = nothing
    ready: str = "main h1"
    looks: tuple[str, ...] = ("light",)
    whole: bool = False
    practised: bool = False


TOUCH = {"has_touch": True, "is_mobile": True}  # a device without keys: hints of keys are hidden
LOOKS = {
    "light": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 800}, "color_scheme": "light", **TOUCH},
    "phone-dark": {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark", **TOUCH},
}
PAGES = {
    "first": Picture("/", guess, looks=("light", "phone-dark")),
    "interview": Picture("/interview", unfold),
    "topic": Picture(HEADS, whole=True),
    "read": Picture(f"{DEPTH}/read", looks=("light", "phone")),
    "why": Picture(f"{DEPTH}/why", measured),
    "walk": Picture(f"{HEADS}/walk", point, looks=("light", "dark", "phone")),
    "tour": Picture(f"{MODEL}/walk", stop, looks=("light", "dark")),
    "try": Picture(f"{DEPTH}/try", predict),
    "sheet": Picture(f"{DEPTH}/sheet"),
    "recall": Picture(f"{DEPTH}/recall", turn),
    "practice": Picture(f"{DEPTH}/practice", hint, looks=("light", "phone")),
    "wrong": Picture("/items/scale-of-logits", miss, looks=("light", "dark"), whole=True),
    "mistakes": Picture(f"{DEPTH}/mistakes", disprove, practised=True),
    "challenge": Picture(f"{HEADS}/challenge", begin),
    "experiment": Picture(f"{DEPTH}/experiment?name=scale", measure, looks=("light", "dark")),
    "build": Picture(f"{HEADS}/build"),
    "own-class": Picture("/items/write-the-class?mode=build", solve, whole=True),
    "test": Picture(f"{DEPTH}/test", sit, whole=True),
    "home": Picture("/", looks=("light", "phone"), practised=True),
    "progress": Picture("/progress", days, practised=True),
    "lens": Picture(
        f"/lens?text={quote(SENTENCE)}&layer=5&head=11&token=10",
        ready="text=looks at",
        looks=("light", "dark", "phone"),
        whole=True,
    ),
    "lens-writes": Picture(
        f"/lens/write?prompt={quote(MARY)}&model=smollm2&count=12",
        switch_off,
        ready=".write-token:not(.write-prompt)",
        looks=("light", "dark", "phone"),
        whole=True,
    ),
    "lens-two": Picture(
        f"/lens?text={quote(SENTENCE)}&second=untrained&pin=other&layer=5&head=11&token=10",
        ready="text=most at",
        looks=("light", "dark"),
        whole=True,
    ),
}


@contextmanager
def studio(folder: str) -> Iterator[str]:
    """Serve the studio of this data folder until its pictures are taken; yield its address."""
    command = [str(Path(sys.executable).with_name("clearhead")), "studio", "--no-browser"]
    server = subprocess.Popen([*command, "--data", folder, "--port", "8799"], stdout=subprocess.PIPE, text=True)
    try:
        address = _address(server)
        _wait_for(server, address)
        yield address
    finally:
        server.terminate()
        server.wait()


def _address(server: "subprocess.Popen[str]") -> str:
    """Return the address that the studio prints: its token lets a browser in."""
    for line in server.stdout or ():
        if printed := re.search(r"http://\S+", line):
            return printed[0]
    sys.exit("the studio did not start; run `clearhead studio` to see why")


def _wait_for(server: "subprocess.Popen[str]", address: str) -> None:
    """Wait until the studio answers and every answer of its course is computed."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    for _ in range(1200):
        if server.poll() is not None:
            sys.exit("the studio did not start; run `clearhead studio` to see why")
        try:
            with opener.open(address) as page:
                if b"being computed" not in page.read():
                    return
        except urllib.error.URLError:
            pass
        time.sleep(0.5)
    sys.exit("the studio was not ready within 10 minutes")


def photograph(browser: Browser, address: str, name: str, picture: Picture) -> None:
    for look in picture.looks:
        context = browser.new_context(**LOOKS[look])  # type: ignore[arg-type]
        context.set_default_timeout(WAIT)
        page = context.new_page()
        page.goto(address)  # its token, if it has one, is kept as a cookie
        page.goto(urljoin(address, picture.path))
        page.locator(picture.ready).first.wait_for()
        page.locator("html.scripted").wait_for()
        picture.act(page)
        page.mouse.move(0, 0)
        page.wait_for_timeout(500)  # a figure paints after it is laid out
        file = PICTURES / (f"{name}.png" if look == "light" else f"{name}-{look}.png")
        page.screenshot(path=file, full_page=picture.whole)
        context.close()
        print(_smaller(file))


def _smaller(file: Path) -> Path:
    """Convert the picture to WebP, a tenth of the size. The Lens's stays PNG, because every README viewer shows it."""
    with Image.open(file) as image:
        if file.stem == "lens":  # it has 2,300 colours; with 256 it takes a third
            image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
            return file
        image.save(file.with_suffix(".webp"), quality=78, method=6)
    file.unlink()
    return file.with_suffix(".webp")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("names", nargs="*", choices=[[], *PAGES], metavar="NAME", help=", ".join(PAGES))
    asked.add_argument("--at", help="the address that a running studio printed, with its token")
    given = asked.parse_args()
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        sys.exit("no Chromium here: install chromium, then run this again")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with FOLDER as folder, sync_playwright() as play:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = play.chromium.launch(executable_path=chromium, args=flags)
        for practised in (False, True):
            names = [name for name in given.names or PAGES if PAGES[name].practised == practised]
            if not names:
                continue
            if practised and not given.at:
                with studio(folder):  # until the answers are computed
                    pass
                for file in Path(folder).glob(f"{FILE}*"):
                    file.unlink()
                practise(Path(folder))
            with nullcontext(given.at) if given.at else studio(folder) as address:
                for name in names:
                    photograph(browser, address, name, PAGES[name])
        browser.close()


if __name__ == "__main__":
    main()
