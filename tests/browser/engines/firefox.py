"""Firefox, through WebDriver BiDi: JSON over a web socket, which it opens itself."""

import base64
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from browser.engines.base import BetweenPages, Engine, Missing, called
from browser.engines.wire import pointed, pressed

_PREFERENCES = {
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.update.disabledForTesting": True,
    "app.normandy.enabled": False,
    "browser.startup.page": 0,
    "toolkit.cosmeticAnimations.enabled": False,
}


class Firefox(Engine):
    name = "firefox"

    def __init__(self, address: str) -> None:
        super().__init__(address)
        program = shutil.which("firefox-esr") or shutil.which("firefox")
        if program is None:
            raise Missing("firefox: not installed (Debian's package is firefox-esr)")
        self._profile = tempfile.TemporaryDirectory(prefix="clearhead-firefox-", ignore_cleanup_errors=True)
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in _PREFERENCES.items()]
        Path(self._profile.name, "user.js").write_text("\n".join(lines))
        self._process = subprocess.Popen(
            [program, "--headless", "--no-remote", "--profile", self._profile.name, "--remote-debugging-port=0"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self._socket: ClientConnection = connect(f"{self._listens_at()}/session", max_size=None, legacy=True)
        self._count = 0
        self._call("session.new", capabilities={})
        self._tab = self._call("browsingContext.getTree")["contexts"][0]["context"]
        self.resize(1200, 900)

    def evaluate(self, function: str, *arguments: Any) -> Any:
        said = self._call(
            "script.evaluate", expression=called(function, arguments), target={"context": self._tab}, awaitPromise=True
        )
        if said["type"] != "success":
            raise AssertionError(said["exceptionDetails"]["text"])
        return json.loads(said["result"]["value"])

    def go(self, address: str) -> None:
        self._call("browsingContext.navigate", context=self._tab, url=address, wait="complete")

    def back(self) -> None:
        self._call("browsingContext.traverseHistory", context=self._tab, delta=-1)

    def reload(self) -> None:
        self._call("browsingContext.reload", context=self._tab, wait="complete")

    def point(self, *path: tuple[float, float]) -> None:
        self._perform({"type": "pointer", "id": "mouse", "actions": pointed(path)})

    def keys(self, text: str) -> None:
        self._perform({"type": "key", "id": "keys", "actions": pressed(text)})

    def screenshot(self) -> bytes:
        return base64.b64decode(self._call("browsingContext.captureScreenshot", context=self._tab)["data"])

    def paper(self) -> bytes:
        """The page as it is printed, as PDF."""
        return base64.b64decode(self._call("browsingContext.print", context=self._tab, background=True)["data"])

    def resize(self, width: int, height: int) -> None:
        self._call("browsingContext.setViewport", context=self._tab, viewport={"width": width, "height": height})

    def close(self) -> None:
        self._call("browser.close")
        self._socket.close()
        self._process.communicate(timeout=30)
        self._profile.cleanup()

    def _perform(self, source: dict[str, Any]) -> None:
        self._call("input.performActions", context=self._tab, actions=[source])

    def _listens_at(self) -> str:
        assert self._process.stderr
        for line in self._process.stderr:
            found = re.search(r"WebDriver BiDi listening on (ws://\S+)", line)
            if found:
                return found[1]
        raise Missing("firefox: it ended before it listened")

    def _call(self, method: str, **parameters: Any) -> Any:
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv(timeout=90))).get("id") != self._count:
            pass
        if answer["type"] == "error":
            if answer["error"] in ("no such frame", "unknown error") and method.startswith("script"):
                raise BetweenPages(answer["message"])
            raise AssertionError(f"{method}: {answer['message']}")
        return answer["result"]
