"""The built documentation site in a browser: no request elsewhere, readable wide and narrow, light and dark."""

import functools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import scripts
from browser.looking import findings

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.stress

LARGEST = 2_000_000  # bytes of one page with all it loads, its live figures left out
LOOKED_AT = ("index.html", "how-it-works.html", "reference/rollout.html", "guides/speed-up.html", "live/walk.html")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="mkdocs-material is not installed: make docs installs it")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_each_public_name_and_method_is_on_its_page(site):
    public = scripts.load("tools/site/public.py")
    missing = []
    for page in public.pages():
        anchors = set(re.findall(r'id="([^"]+)"', (site / "reference" / f"{page}.html").read_text()))
        for name in public.names(page):
            missing += [a for a in (name, *(f"{name}.{member}" for member in public.members(name))) if a not in anchors]
    assert missing == []


def test_no_page_names_another_server_for_what_it_loads(site):
    loads = re.compile(
        r'<(?:script|img|iframe|source)[^>]*\ssrc="(?:https?:)?//|<link[^>]*rel="(?:stylesheet|preconnect)"[^>]*href="(?:https?:)?//'
    )
    assert [page.name for page in site.rglob("*.html") if loads.search(page.read_text())] == []


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


class Watched:
    """A page of the browser, and what it did that no page may do."""

    def __init__(self, browser, served: str, **look: object) -> None:
        self.context = browser.new_context(**look)
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        own = (served, "data:", "blob:")
        self.context.on("request", lambda request: request.url.startswith(own) or self.elsewhere.append(request.url))
        self.context.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.page = self.context.new_page()


WEIGHT = """performance.getEntries().filter((entry) => !entry.name.includes("/live/"))
  .reduce((sum, entry) => sum + (entry.transferSize ?? 0), 0)"""


# Lines of code that scroll sideways: none on a wide page, and on a phone only those of what was printed.
SCROLLS = """(programs) => [...document.querySelectorAll(programs ? ":is(.language-python, .language-pycon, .language-sh, .language-bash) pre > code" : "pre > code")]
  .filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.textContent.slice(0, 90))"""
LOOKS = ((390, "dark"), (1440, "light"), (1440, "dark"), (390, "light"))  # pages take turns; a few have all, below


def test_every_page_asks_no_other_server_is_light_and_readable(browser, served, site):
    looks = [
        Watched(browser, served, viewport={"width": width, "height": 900}, color_scheme=scheme)
        for width, scheme in LOOKS
    ]
    wrong = []
    for number, path in enumerate(sorted(site.rglob("*.html"))):
        name = path.relative_to(site).as_posix()
        width, page = LOOKS[number % 4][0], looks[number % 4].page
        page.goto(served + name, wait_until="load")
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wrong.append(f"{name} is wider than {width} pixels")
        wrong += [f"{name} scrolls at {width}: {code}" for code in page.evaluate(SCROLLS, width == 390)]
        weight = page.evaluate(WEIGHT)
        if weight > LARGEST and name != "studio.html":  # forty screenshots
            wrong.append(f"{name} weighs {weight}")
        wrong += [f"{name}: {finding}" for finding in findings(page)]
    for watched in looks:
        watched.context.close()
        wrong += watched.elsewhere + watched.errors
    assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_one_page_of_each_kind_is_readable_by_everybody(browser, served, width, scheme):
    watched = Watched(browser, served, viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong = []
    for name in LOOKED_AT:
        watched.page.goto(served + name, wait_until="load")
        wrong += [f"{name}: {finding}" for finding in findings(watched.page)]
    watched.context.close()
    assert (watched.elsewhere, watched.errors, wrong) == ([], [], [])


def test_search_finds_a_method(browser, served):
    page = browser.new_page()
    page.goto(served)
    page.locator(".md-search__input").fill("mean_distance")
    page.locator(".md-search-result__link").first.wait_for()
    assert "AttentionMatrix" in page.locator(".md-search-result__list").inner_text()
    page.close()


def test_a_number_of_walk_reaches_the_output(browser, served):
    page = browser.new_page()
    page.goto(served + "live/walk.html")
    cell = page.locator('[data-matrix="result"] td[data-i="0"][data-j="0"] .value')
    before = cell.inner_text()
    page.locator('input[name="v-0-0"]').fill("9")
    assert cell.inner_text() != before
    page.locator('input[name="causal"]').check()
    assert page.locator('[data-matrix="logits-0"] td.masked').count() == 3
    page.close()
