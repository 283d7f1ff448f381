"""A real Chromium for whatever is marked `browser`: the conftest.py of a room that needs one imports the fixture."""

import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Chromium's headless shell first: the same pages for 30 % less CPU time, without the browser around them.
NAMES = (
    "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
)  # fmt: skip
CHROME = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_LAUNCHED: "pytest.StashKey[Browser]" = pytest.StashKey()


@pytest.fixture(scope="session")
def browser(request: pytest.FixtureRequest) -> "Browser":
    """A Chromium for the whole run. Playwright allows one driver per process, so all rooms share it."""
    config = request.config
    if _LAUNCHED not in config.stash:
        if CHROME is None:
            pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
        api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
        driver = api.sync_playwright().start()
        config.add_cleanup(driver.stop)
        config.stash[_LAUNCHED] = driver.chromium.launch(executable_path=CHROME, args=FLAGS)
        config.add_cleanup(config.stash[_LAUNCHED].close)
    return config.stash[_LAUNCHED]
