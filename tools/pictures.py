"""Make the screenshots in docs/pictures: `.venv/bin/python tools/pictures.py` starts a studio and photographs it."""

import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"
ADDRESS = "http://127.0.0.1:8799"
SENTENCE = "The animal didn't cross the street because it was too tired"
TOPIC = "/topics/attention/attention-in-depth"

# name -> (address, what must be on the page before the picture is taken)
PAGES = {
    "lens": (f"/lens?text={quote(SENTENCE)}&layer=5&head=11&token=10", "text=looks at"),
    "home": ("/", "main h1"),
    "read": (f"{TOPIC}/read", "main h1"),
    "recall": (f"{TOPIC}/recall", "main"),
    "practice": (f"{TOPIC}/practice", "main fieldset, main h1, main h2"),
}
WHOLE = ("lens",)  # pages that fit on one picture from top to bottom


@contextmanager
def studio() -> Iterator[None]:
    """Serve a studio with an empty store until its pictures are taken."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            str(Path(sys.executable).with_name("clearhead")),
            "studio",
            "--no-browser",
            "--data",
            folder,
            "--port",
            "8799",
        ]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _wait_for(server)
            yield
        finally:
            server.terminate()
            server.wait()


def _wait_for(server: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        if server.poll() is not None:
            sys.exit("the studio did not start; run `clearhead studio` to see why")
        try:
            urllib.request.urlopen(ADDRESS).close()
        except urllib.error.URLError:
            time.sleep(0.5)
        else:
            return
    sys.exit("the studio did not answer within 150 s")


def photograph(page: Page, name: str, path: str, ready: str) -> None:
    page.goto(ADDRESS + path)
    page.locator(ready).first.wait_for(timeout=60_000)
    page.wait_for_timeout(300)  # a figure paints after it is laid out
    page.screenshot(path=PICTURES / f"{name}.png", full_page=name in WHOLE)


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium here: install chromium, then run this again")
    PICTURES.mkdir(parents=True, exist_ok=True)
    wanted = sys.argv[1:] or list(PAGES)
    with studio(), sync_playwright() as play:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = play.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light")
        for name in wanted:
            photograph(page, name, *PAGES[name])
            print(PICTURES / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
