"""Three browser engines behind one interface: Chromium, Firefox and WebKit, each at the address it is given."""

from browser.engines.base import Engine, Missing
from browser.engines.chromium import Chromium
from browser.engines.firefox import Firefox
from browser.engines.webkit import WebKit

ENGINES: tuple[type[Engine], ...] = (Chromium, Firefox, WebKit)

__all__ = ["ENGINES", "Chromium", "Engine", "Firefox", "Missing", "WebKit"]
