"""WebKit, the engine of Safari, through WebKitGTK's WebDriver; it needs a display, so Xvfb gives it one."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from browser.engines.base import BetweenPages, Engine, Missing, called
from browser.engines.wire import pointed, pressed
from clearhead.studio.app.serving import take_port

_NEEDS = {"WebKitWebDriver": "webkit2gtk-driver", "Xvfb": "xvfb"}  # program -> Debian's package
_GONE = ("javascript error", "no such window", "timeout", "unknown error")


class WebKit(Engine):
    name = "webkit"

    def __init__(self, address: str) -> None:
        super().__init__(address)
        for program, package in _NEEDS.items():
            if shutil.which(program) is None:
                raise Missing(f"webkit: {program} is not installed (Debian's package is {package})")
        programs = sorted(Path("/usr").glob("lib*/**/webkit2gtk-4*/MiniBrowser"))
        if not programs:
            raise Missing("webkit: MiniBrowser is not installed (Debian's package is libwebkit2gtk-4.1-0)")
        self._program = programs[-1]
        self._home = tempfile.TemporaryDirectory(prefix="clearhead-webkit-", ignore_cleanup_errors=True)
        self._display, number = _display()
        with take_port("127.0.0.1", 0) as free:
            port = free.getsockname()[1]
        self._at = f"http://127.0.0.1:{port}"
        # Its own confinement needs user namespaces, which root in a container often lacks; it opens our pages alone.
        surroundings = {"DISPLAY": number, "HOME": self._home.name, "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1"}
        self._driver = subprocess.Popen(
            ["WebKitWebDriver", f"--port={port}"],
            env={**os.environ, **surroundings},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._session = ""
        self._started()
        self.resize(1200, 900)

    def evaluate(self, function: str, *arguments: Any) -> Any:
        script = f"const done = arguments[0]; {called(function, arguments)}.then(done, (bad) => done({{ bad: String(bad) }}))"
        said = self._ask("POST", "/execute/async", {"script": script, "args": []})
        if not isinstance(said, str):
            raise AssertionError(f"webkit: {said}")
        return json.loads(said)

    def go(self, address: str) -> None:
        self._ask("POST", "/url", {"url": address})

    def back(self) -> None:
        self._ask("POST", "/back", {})

    def reload(self) -> None:
        self._ask("POST", "/refresh", {})

    def point(self, *path: tuple[float, float]) -> None:
        self._perform(
            {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": pointed(path)}
        )

    def keys(self, text: str) -> None:
        self._perform({"type": "key", "id": "keys", "actions": pressed(text)})

    def screenshot(self) -> bytes:
        return base64.b64decode(self._ask("GET", "/screenshot"))

    def resize(self, width: int, height: int) -> None:
        self._ask("POST", "/window/rect", {"x": 0, "y": 0, "width": width, "height": height})

    def close(self) -> None:
        with suppress(AssertionError, OSError):
            self._ask("DELETE", "")
        for process in (self._driver, self._display):
            process.terminate()
            process.wait(timeout=30)
        self._home.cleanup()

    def _started(self) -> None:
        options = {"binary": str(self._program), "args": ["--automation"]}
        wanted = {"capabilities": {"alwaysMatch": {"webkitgtk:browserOptions": options}}}
        for _ in range(100):
            with suppress(ConnectionError, OSError):
                self._session = "/session/" + self._ask("POST", "/session", wanted)["sessionId"]
                return
            time.sleep(0.1)
        raise Missing("webkit: WebKitWebDriver does not answer")

    def _perform(self, source: dict[str, Any]) -> None:
        self._ask("POST", "/actions", {"actions": [source]})

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self._at}{self._session}{path}", data, {"content-type": "application/json"}, method=method)
        try:
            with urlopen(request, timeout=90) as answer:
                return json.load(answer)["value"]
        except HTTPError as problem:
            said = json.load(problem)["value"]
            if path.startswith("/execute") and said["error"] in _GONE:
                raise BetweenPages(said["message"]) from problem
            raise AssertionError(f"webkit: {path}: {said}") from problem


def _display() -> tuple[subprocess.Popen[bytes], str]:
    """A display of its own, and its number as `DISPLAY` has it."""
    reads, writes = os.pipe()
    screen = ["-screen", "0", "1600x1200x24", "-nolisten", "tcp"]
    process = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writes), *screen], pass_fds=[writes], stderr=subprocess.DEVNULL
    )
    os.close(writes)
    with os.fdopen(reads) as said:
        return process, f":{said.readline().strip()}"
