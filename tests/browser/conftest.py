"""A real Chromium before a running studio. No request may leave the machine: every other address is an error."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from chromium import browser
from clearhead.studio.app.application import create
from clearhead.studio.library.library import Library
from clearhead.studio.web.settings import Settings
from serving import serve_app
from studio import sample

expect.set_options(timeout=60_000)  # a busy machine is slow, not wrong


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and "engine" not in getattr(item, "fixturenames", ()):  # which brings its own
            item.add_marker(pytest.mark.browser)


def serve(data: Path, library: Library, settings: Settings | None = None) -> Iterator[str]:
    """Serve a fresh studio over this library, and yield its address."""
    yield from serve_app(create(settings or Settings(data=data), library))


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A fresh studio over the sample course."""
    yield from serve(tmp_path, sample.library())


class Watched:
    """Forbidden actions of a page: requests off the machine, errors in its console."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.strayed: list[str] = []
        self.errors: list[str] = []
        self._address = address
        context.route("**/*", self._route)
        context.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        context.on("weberror", lambda error: self.errors.append(str(error.error)))

    def _route(self, route: Route) -> None:
        if route.request.url.startswith((self._address, "data:")):
            route.continue_()
        else:
            self.strayed.append(route.request.url)
            route.abort()


@pytest.fixture
def look(request: pytest.FixtureRequest) -> dict[str, object]:
    """The options of the browser context; a test may parametrize them."""
    return getattr(request, "param", {})


@pytest.fixture
def page(browser: Browser, address: str, look: dict[str, object]) -> Iterator[Page]:
    context = browser.new_context(base_url=address, **{"service_workers": "block", **look})  # type: ignore[arg-type]
    context.set_default_timeout(60_000)
    watched = Watched(context, address)
    yield context.new_page()
    context.close()
    assert not watched.strayed, "a page asked something off this machine"
    # A wrong password, a form that is too old, no such page, a full queue, a database that is away, a network switched off.
    meant = ("401", "403", "404", "429", "503", "ERR_INTERNET_DISCONNECTED")
    assert not [error for error in watched.errors if not any(one in error for one in meant)], "errors in its console"
