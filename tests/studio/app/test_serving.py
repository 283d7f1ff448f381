"""The command as a person runs it: the address, a taken port, Ctrl-C, a second start."""

import contextlib
import logging
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from clearhead import sandbox
from clearhead.cli import app as cli
from clearhead.errors import OptionError, StoreError
from clearhead.sandbox.confinement import priority
from clearhead.studio.app import browser, serving
from clearhead.studio.app.connections import Connection
from clearhead.studio.web.context import secret_in
from clearhead.studio.web.settings import Settings
from studio.accounts.test_accounts import WORD

# The command's own path, over the sample course: what is proved, and how fast, is the course's business.
START = """
import sys
from pathlib import Path
from studio.sample import library
from clearhead.studio.app import browser, serving
from clearhead.studio.web.settings import Settings
serving.unproved, serving.prove = lambda paths: library(), lambda library, *rest: library
serving.serve(Settings(data=Path(sys.argv[1]), port=int(sys.argv[2] or 0), token=""), browser=False)
assert "torch" not in sys.modules, "the studio must not load torch before somebody opens the Lens"
"""


@contextmanager
def started(data: Path, port: int | str = 0, program: str = START) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The running studio, its address and what it printed before."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    running = subprocess.Popen(
        [sys.executable, "-u", "-c", program, str(data), str(port or "")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert running.stdout is not None
    said = ""
    for line in running.stdout:
        said += line
        if found := re.search(r"Clearhead studio: (http://[\d.]+:\d+)", line):
            address = found[1]
        if "Passwords are sent" in line or (program == START and "Your work is saved" in line):
            break
    else:
        pytest.fail(f"the studio did not start: {said}{running.communicate()[1]}")
    try:
        yield running, address, said
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate()


@pytest.mark.slow
def test_it_serves_and_stops_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    with started(tmp_path) as (running, address, _):
        with urllib.request.urlopen(address, timeout=20) as page:
            assert page.status == 200
        running.send_signal(signal.SIGINT)
        out, errors = running.communicate(timeout=20)
        assert running.returncode == 0, errors
        assert "Stopped." in out
        assert errors == ""


SHARED = """
import sys
from pathlib import Path
from studio.sample import library
from clearhead.studio.app import browser, serving
from clearhead.studio.web.settings import Settings
serving.unproved, serving.prove = lambda paths: library(), lambda library, *rest: library
serving.serve(Settings(data=Path(sys.argv[1]), host="0.0.0.0", port=0, url=sys.argv[2] or None), browser=False)
"""


def ask(learner: httpx2.Client, item: str) -> tuple[httpx2.Response, dict[str, str]]:
    """The page of a question, and the form that answers it."""
    question = learner.get(f"/items/{item}")
    ticket = re.search(r'name="ticket" value="([^"]+)"', question.text)
    assert ticket
    return question, {"ticket": ticket[1], "response": "a"}


def posted(page: httpx2.Response, browser: httpx2.Client, address: str, **fields: str) -> httpx2.Response:
    """Send a form of this page."""
    token = re.search(r'<meta name="csrf" content="([^"]+)"', page.text)
    assert token
    return browser.post(address, data={"csrf": token[1], **fields})


@pytest.mark.slow
@pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be confined here: {sandbox.explain()}")
def test_a_shared_studio_on_a_real_socket_from_the_invitation_to_logging_out(tmp_path: Path) -> None:
    with started(tmp_path, program=SHARED) as (running, address, said):
        assert "Nobody can log in yet; invite somebody" in said
        assert "--url http" in said
        port = address.rsplit(":", 1)[1]
        invite = ["studio", "user", "add", "ada", "--data", str(tmp_path), "--url", f"http://127.0.0.1:{port}"]
        link = re.search(r"^http\S+", CliRunner().invoke(cli, invite).output, re.M)
        assert link
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", follow_redirects=True, timeout=60) as ada:
            for address in ("/", "/progress", "/items/scale-of-logits", "/settings/data.json", "/lens"):
                assert ada.get(address).status_code == 401
                asked = ada.get(address, headers={"accept": "text/html"})
                assert asked.url.path == "/login", "nobody comes in without an account"
            joined = posted(ada.get(link[0]), ada, link[0], password=WORD, again=WORD)
            assert joined.status_code == 200
            assert "ada" in joined.text
            question = ada.get("/items/scale-of-logits")
            ticket = re.search(r'name="ticket" value="([^"]+)"', question.text)
            assert ticket
            told = posted(question, ada, "/answer", ticket=ticket[1], response="a", sure="fairly")
            assert told.status_code == 200
            assert len(ada.get("/settings/data.json").json()["attempts"]) == 1
            assert posted(told, ada, "/logout").url.path == "/login"
            assert ada.get("/settings/data.json").status_code == 401
            page = ada.get("/login")
            assert posted(page, ada, "/login", name="ada", password=WORD[:-1]).status_code == 401
            assert posted(page, ada, "/login", name="ada", password=WORD).status_code == 200
            assert len(ada.get("/settings/data.json").json()["attempts"]) == 1
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=20)
        assert running.returncode == 0, errors


@pytest.mark.slow
def test_headers_without_end_are_refused(tmp_path: Path) -> None:
    """uvicorn would take another parser, without such a limit, where one is installed."""
    assert serving.config(None, Settings(data=tmp_path)).http is Connection  # type: ignore[arg-type]
    with started(tmp_path) as (_, address, _):
        host, port = address.removeprefix("http://").split(":")
        for begin in (
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: ",
            b"GET /",
            b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 9999,
        ):
            with socket.create_connection((host, int(port)), timeout=20) as client:
                sent = 0
                with contextlib.suppress(ConnectionError):
                    client.sendall(begin)
                    while sent < 32:  # MiB
                        client.sendall(b"a" * 2**20)
                        sent += 1
                assert sent < 32


@pytest.mark.slow
def test_kill_9_right_after_a_reply_loses_no_answer(tmp_path: Path) -> None:
    with started(tmp_path) as (running, address, _), httpx2.Client(base_url=address, timeout=60) as learner:
        question, form = ask(learner, "scale-of-logits")
        told = posted(question, learner, "/answer", **form)
        running.kill()
        assert told.status_code in (200, 303)
        running.wait(timeout=20)
    with contextlib.closing(sqlite3.connect(tmp_path / "clearhead.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with started(tmp_path) as (_, address, _), httpx2.Client(base_url=address, timeout=60) as learner:
        assert len(learner.get("/settings/data.json").json()["attempts"]) == 1
        posted(learner.get("/"), learner, "/answer", **form)
        assert len(learner.get("/settings/data.json").json()["attempts"]) == 1, "sent twice, it counts once"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="a disk is made full by prlimit, which is Linux's")
def test_a_full_disk_is_reported_in_a_page_and_there_is_room_again(tmp_path: Path) -> None:
    """No file of the running studio may grow: what a full disk says to SQLite."""
    with started(tmp_path) as (running, address, _), httpx2.Client(base_url=address, timeout=60) as learner:
        question, first = ask(learner, "scale-of-logits")
        posted(question, learner, "/answer", **first)
        question, second = ask(learner, "mend-the-mask")
        room = resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        told = posted(question, learner, "/answer", **second)
        assert told.status_code == 500
        assert "Nothing in it was changed. To go on, make room" in told.text
        assert "Traceback" not in told.text
        assert learner.get("/").status_code == 200, "what needs no room goes on"
        assert len(learner.get("/settings/data.json").json()["attempts"]) == 1
        resource.prlimit(running.pid, resource.RLIMIT_FSIZE, room)
        assert posted(question, learner, "/answer", **second).status_code in (200, 303)
        kept = learner.get("/settings/data.json").json()["attempts"]
        assert [one["item_id"] for one in kept] == ["scale-of-logits", "mend-the-mask"]
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=20)
        assert (running.returncode, errors) == (0, "")


@pytest.mark.slow
def test_a_taken_port_gets_the_next_free_one_said_in_a_line(tmp_path: Path) -> None:
    with serving.take_port("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with started(tmp_path, port) as (_, address, said):
            assert int(address.rsplit(":", 1)[1]) > port
            assert f"Port {port} is taken" in said


@pytest.mark.parametrize(
    "host", ["1.2.3.4", "::2", "no.such.invalid", "256.1.1.1", "a b", "ä" * 99, "\udcff", "http://a"]
)
def test_an_address_of_another_machine_is_distinguished_from_a_taken_port(host: str) -> None:
    with pytest.raises(OptionError, match="is not an address of this machine") as refused:
        serving.take_port(host, 8765)
    assert "[Errno" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "is_graphical"), [("lynx", False), ("/usr/bin/www-browser", False), ("firefox", True)]
)
def test_a_text_browser_does_not_take_over_the_terminal(
    monkeypatch: pytest.MonkeyPatch, name: str, is_graphical: bool
) -> None:
    given = webbrowser.GenericBrowser(name)
    monkeypatch.setattr(webbrowser, "get", lambda: given)
    assert browser.graphical_browser() is (given if is_graphical else None)


def test_no_browser_at_all_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def get() -> None:
        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(webbrowser, "get", get)
    assert browser.graphical_browser() is None


def test_an_empty_host_is_not_every_address() -> None:
    with pytest.raises(OptionError, match="the host is empty"):
        serving.take_port("", 0)


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_a_certificate_that_cannot_be_used_is_reported_before_anything_is_served(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "a.pem"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    for certificate, key in ((file, file), (tmp_path / "nowhere", file)):
        with pytest.raises(OptionError, match=r"cannot be (read|served)"):
            serving.serve(Settings(data=tmp_path, certificate=certificate, key=key), browser=False)


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe"])
def test_a_damaged_secret_is_not_signed_with(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(StoreError, match=r"is damaged\. Remove it"):
        secret_in(tmp_path)


def test_no_free_port_is_reported() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 65535))
        taken.listen()
        with pytest.raises(OptionError, match="no port from 65535 on is free"):
            serving.take_port("127.0.0.1", 65535)


def test_the_log_of_the_server_does_not_act_on_the_terminal() -> None:
    """A traceback repeats what was sent."""
    formatting = serving.config(FastAPI(), Settings()).log_config["formatters"]["default"]  # type: ignore[index,call-overload]
    formatter = serving.CleanFormatter(formatting["fmt"], use_colors=formatting["use_colors"])
    try:
        raise ValueError("\x1b]0;title\x07\x9b2J\u202e")
    except ValueError as problem:
        raised = (type(problem), problem, problem.__traceback__)
    record = logging.LogRecord("uvicorn.error", logging.ERROR, "", 1, "at \x1b[2J%s", ("\r",), raised)
    said = formatter.format(record)
    assert said.isprintable() or not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said)
    assert r"at \x1b[2J\r" in said
    assert r"\x1b]0;title\x07\x9b2J\u202e" in said


def test_a_shared_studio_runs_programs_at_a_low_priority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Server:
        def __init__(self, config: Any) -> None:
            lowered.append(priority.is_low())
            raise KeyboardInterrupt

    lowered: list[bool] = []
    monkeypatch.setattr(serving.uvicorn, "Server", Server)
    monkeypatch.setattr(serving, "config", lambda *_: None)
    for accounts in (False, True):
        monkeypatch.setattr(priority, "_low", False)
        with pytest.raises(KeyboardInterrupt):
            serving._run(None, Settings(data=tmp_path, accounts=accounts), None, None)  # type: ignore[arg-type]
    assert lowered == [False, True]
