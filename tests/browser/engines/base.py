"""The interface of a browser engine. A subclass drives one browser; everything else is built on its few methods."""

import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

PATIENCE = float(os.environ.get("CLEARHEAD_PATIENCE", "120"))  # seconds; a busy machine is slow, not wrong

# The first element that is shown, matches the selector and contains the text. Scripts of the three engines know it.
_FIND = """(selector, text) => {
  const shown = (one) => one.getClientRects().length > 0 || one.matches("option, input");
  const said = (one) => `${one.textContent} ${one.getAttribute("aria-label") ?? ""}`.replace(/\\s+/g, " ");
  return [...document.querySelectorAll(selector)].find((one) => shown(one) && said(one).includes(text)) ?? null;
}"""
_BOX = f"""(selector, text) => {{
  const one = ({_FIND})(selector, text);
  if (!one) return null;
  one.scrollIntoView({{ block: "center", behavior: "instant" }});
  const {{ left, top, width, height }} = one.getBoundingClientRect();
  return [left + width / 2, top + height / 2];
}}"""
_FILL = f"""(selector, text) => {{
  const one = ({_FIND})(selector, "");
  if (!one) return null;
  one.focus();
  one.select?.();
  return true;
}}"""
_CHOOSE = f"""(selector, value) => {{
  const one = ({_FIND})(selector, "");
  if (!one) return null;
  one.value = value;
  for (const kind of ["input", "change"]) one.dispatchEvent(new Event(kind, {{ bubbles: true }}));
  return true;
}}"""
# Show the page as it is printed: rules for print apply to the screen, and rules for the screen alone do not.
_PRINT = """() => {
  const swapped = (media) => media.replace(/\\bscreen\\b/g, "tty").replace(/\\bprint\\b/g, "screen");
  for (const sheet of document.styleSheets) {
    if (sheet.media.mediaText) sheet.media.mediaText = swapped(sheet.media.mediaText);
    for (const rule of sheet.cssRules) if (rule.media) rule.media.mediaText = swapped(rule.media.mediaText);
  }
  document.documentElement.classList.add("printed");
}"""


class Missing(Exception):
    """The engine cannot run here; the message says what is not installed."""


class Engine(ABC):
    """One browser window. Addresses are relative to `address`."""

    name: ClassVar[str]

    def __init__(self, address: str) -> None:
        self.address = address

    @abstractmethod
    def evaluate(self, function: str, *arguments: Any) -> Any:
        """Return the result of this JavaScript function for these arguments, as JSON; a promise is awaited."""

    @abstractmethod
    def go(self, address: str) -> None:
        """Load a whole address."""

    @abstractmethod
    def back(self) -> None: ...

    @abstractmethod
    def reload(self) -> None: ...

    @abstractmethod
    def point(self, *path: tuple[float, float]) -> None:
        """Press the pointer at the first place, move over the others, release it at the last. In CSS pixels."""

    @abstractmethod
    def keys(self, text: str) -> None:
        """Type each character; a name such as "Enter" is one key."""

    @abstractmethod
    def screenshot(self) -> bytes:
        """The window as PNG."""

    @abstractmethod
    def resize(self, width: int, height: int) -> None:
        """Make the page this wide, or as near to it as the engine's window allows."""

    @abstractmethod
    def close(self) -> None: ...

    def open(self, path: str) -> None:
        self.go(self.address + path)
        self.ready()

    def ready(self) -> None:
        """Wait until the page listens to keys."""
        self.wait("() => document.readyState === 'complete' && document.documentElement.classList.contains('scripted')")

    def wait(self, function: str, *arguments: Any) -> Any:
        """Wait until this function returns a truthy value in the page, and return it."""
        end, found = time.monotonic() + PATIENCE, None
        while time.monotonic() < end:
            found = self._meanwhile(lambda: self.evaluate(function, *arguments))
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(
            f"{self.name}: never {function} {arguments} on {self.evaluate('() => document.body.innerText')[:600]}"
        )

    def sees(self, text: str, selector: str = "body") -> None:
        """Wait until this text is shown."""
        self.wait(f"(selector, text) => Boolean(({_FIND})(selector, text))", selector, text)

    def has(self, text: str, selector: str = "body") -> bool:
        return bool(self.evaluate(f"(selector, text) => Boolean(({_FIND})(selector, text))", selector, text))

    def where(self, selector: str, text: str = "") -> tuple[float, float]:
        """The middle of an element, once it is there and shown."""
        x, y = self.wait(_BOX, selector, text)
        return x, y

    def click(self, selector: str, text: str = "") -> None:
        self.point(self.where(selector, text))

    def leave(self, selector: str, text: str = "") -> None:
        """Click what leads to another page, and wait for that page."""
        self._elsewhere(lambda: self.click(selector, text))

    def press_and_leave(self, key: str) -> None:
        self._elsewhere(lambda: self.keys(key))

    def type(self, selector: str, text: str) -> None:
        """Replace the text of a field, by keys."""
        self.wait(_FILL, selector, text)
        self.keys(text)

    def choose(self, selector: str, value: str) -> None:
        """Set a select or a range."""
        self.wait(_CHOOSE, selector, value)

    def value(self, selector: str) -> str:
        return str(
            self.wait(f"(selector) => {{ const one = ({_FIND})(selector, ''); return one && [one.value]; }}", selector)[
                0
            ]
        )

    def again(self, how: Callable[[], None]) -> None:
        """Go back or reload, and wait for the page."""
        how()
        self.ready()

    def print(self) -> None:
        """Show the page as it would be printed, until the next one is loaded."""
        self.evaluate(_PRINT)

    def _elsewhere(self, act: Callable[[], None]) -> None:
        self.evaluate("() => { window.here = true }")
        act()
        self.wait("() => !window.here && document.readyState === 'complete'")
        self.ready()

    def _meanwhile(self, ask: Callable[[], Any]) -> Any:
        """What it answers, or None where the page is just being replaced by another."""
        try:
            return ask()
        except BetweenPages:
            return None


class BetweenPages(Exception):
    """The page went away while it was asked."""


def called(function: str, arguments: tuple[Any, ...]) -> str:
    """An expression that calls this function: its arguments travel as JSON, and so does what it returns."""
    return f"(async () => JSON.stringify((await ({function})(...{json.dumps(arguments)})) ?? null))()"
