"""Chromium, through the Playwright driver that all browser tests share."""

import json
from typing import Any

from playwright.sync_api import Browser, Error

from browser.engines.base import BetweenPages, Engine, called


class Chromium(Engine):
    name = "chromium"

    def __init__(self, address: str, browser: Browser) -> None:
        super().__init__(address)
        self._context = browser.new_context(service_workers="block", viewport={"width": 1200, "height": 900})
        self._page = self._context.new_page()

    def evaluate(self, function: str, *arguments: Any) -> Any:
        try:
            return json.loads(self._page.evaluate(called(function, arguments)))
        except Error as problem:
            if "context was destroyed" in str(problem) or "navigation" in str(problem):
                raise BetweenPages from problem
            raise

    def go(self, address: str) -> None:
        self._page.goto(address)

    def back(self) -> None:
        self._page.go_back()

    def reload(self) -> None:
        self._page.reload()

    def point(self, *path: tuple[float, float]) -> None:
        mouse = self._page.mouse
        mouse.move(*path[0])
        mouse.down()
        for place in path[1:]:
            mouse.move(*place, steps=4)
        mouse.up()

    def keys(self, text: str) -> None:
        if len(text) > 1 and (text in NAMED or "+" in text):
            self._page.keyboard.press(text)
        else:
            self._page.keyboard.type(text)

    def screenshot(self) -> bytes:
        return self._page.screenshot()

    def resize(self, width: int, height: int) -> None:
        self._page.set_viewport_size({"width": width, "height": height})

    def close(self) -> None:
        self._context.close()


NAMED = ("Enter", "Escape", "Tab", "ArrowLeft", "ArrowRight", "ArrowDown", "ArrowUp", "Backspace")
