"""Find the browser that the studio opens."""

import webbrowser
from pathlib import Path

TEXT_BROWSERS = {"www-browser", "links", "elinks", "lynx", "w3m"}  # what Python takes where there is no display


def graphical_browser() -> webbrowser.BaseBrowser | None:
    """Return the user's browser; None if there is none, or only a text browser, which would take over the terminal."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return None
    return None if Path(browser.name).name in TEXT_BROWSERS else browser
