"""What every folder of tests shares: one real browser a worker, for whatever is marked `browser`."""

import os
import shutil
from collections.abc import Iterator

import pytest
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROME = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

# The same examples on every run of CI, so that what it says depends on the change alone; new ones everywhere else.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("browser") is not None and CHROME is None:
            item.add_marker(pytest.mark.skip(reason=f"no browser: none of {', '.join(NAMES)} is installed"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium for the whole run: Playwright allows one driver a process, so every test shares this one."""
    with sync_playwright() as driver:
        chrome = driver.chromium.launch(executable_path=CHROME, args=FLAGS)
        yield chrome
        chrome.close()
