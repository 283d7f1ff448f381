"""Connections that wait for their client: half requests, endless bodies, answers that nobody reads; and the log."""

import asyncio
import contextlib
import logging
import logging.config
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from clearhead.studio.app import serving
from clearhead.studio.app.connections import Connection
from clearhead.studio.web.settings import Settings

HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
POST = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n"
LARGE = 2**26  # more than the kernel's buffers hold for one connection


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, but for /refused, and answer with "here", or with LARGE bytes for /large."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            await send({"type": f"{(await receive())['type']}.complete"})
        return
    while scope["path"] != "/refused" and (message := await receive()).get("more_body"):
        assert message["type"] == "http.request"
    if scope["path"] == "/slow":
        await asyncio.sleep(4 * Connection.seconds)
    body = b"a" * LARGE if scope["path"] == "/large" else b"here"
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server with the studio's own configuration, but for the numbers."""
    monkeypatch.setattr(Connection, "seconds", 0.3)
    monkeypatch.setattr(Connection, "most", 8)
    server = uvicorn.Server(serving.config(answer, Settings(data=tmp_path)))
    with serving.take_port("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def opened(port: int, sent: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.sendall(sent)
    return client


def is_closed(client: socket.socket) -> bool:
    """Return whether the server closes this connection, after whatever it sends."""
    with contextlib.suppress(ConnectionError):
        while client.recv(2**20):
            pass
    return True  # recv raises TimeoutError where it does not


@pytest.mark.parametrize("half", [b"", b"GET", HEAD + b"A: ", POST + b"name="])
def test_half_a_request_is_waited_for_a_while(port: int, half: bytes) -> None:
    with opened(port, half) as client:
        assert is_closed(client)


@pytest.mark.parametrize("path", [b"/", b"/refused"])
def test_a_body_that_trickles_is_not_waited_for(port: int, path: bytes) -> None:
    """Also where the answer was sent without it: what arrives meanwhile does not begin the time again."""
    body = POST.replace(b"POST /", b"POST " + path).replace(b"Content-Length: 9", b"Content-Length: 999999")
    with opened(port, body) as client:
        client.settimeout(0.02)
        with contextlib.suppress(ConnectionError):
            for _ in range(500):  # ten seconds
                with contextlib.suppress(TimeoutError):
                    if not client.recv(2**16):
                        return
                client.sendall(b"a")
            pytest.fail("the body was waited for")


@pytest.mark.parametrize("last", [b"", b"Connection: close\r\n"])
def test_an_answer_that_nobody_reads_is_not_kept(port: int, last: bytes) -> None:
    with opened(port, HEAD.replace(b"/ ", b"/large ") + last + b"\r\n") as client:
        threading.Event().wait(3 * Connection.seconds)  # reads nothing
        received = 0
        with contextlib.suppress(ConnectionError):
            while taken := len(client.recv(2**20)):
                received += taken
        assert received < LARGE


def test_an_answer_that_takes_long_is_sent(port: int) -> None:
    """It is the server's turn, so the client's time does not run."""
    with opened(port, HEAD.replace(b"/ ", b"/slow ") + b"Connection: close\r\n\r\n") as client:
        assert b"".join(iter(lambda: client.recv(2**16), b"")).endswith(b"here")


def test_an_idle_connection_takes_the_next_request(port: int) -> None:
    with opened(port) as client:
        for _ in range(3):
            client.sendall(HEAD + b"\r\n")
            assert client.recv(2**16)
            threading.Event().wait(2 * Connection.seconds)


def test_among_too_many_the_one_that_waits_longest_is_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "seconds", 600)
    with contextlib.ExitStack() as held:
        half = [held.enter_context(opened(port, HEAD)) for _ in range(20)]
        with opened(port, HEAD + b"Connection: close\r\n\r\n") as learner:
            assert b"".join(iter(lambda: learner.recv(2**16), b"")).endswith(b"here")
        assert is_closed(half[0])
        half[-1].sendall(b"\r\n")
        assert half[-1].recv(2**16).startswith(b"HTTP/1.1 200"), "the newest were kept"


def test_what_strangers_send_writes_nothing_to_the_log(port: int, caplog: pytest.LogCaptureFixture) -> None:
    upgrade = HEAD + b"Connection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    logging.getLogger("uvicorn.error").propagate = True
    with caplog.at_level(logging.WARNING):
        for sent in (b"\x00\xff\r\n\r\n", HEAD + b"Content-Length: -5\r\n\r\n", upgrade):
            with opened(port, sent) as client:
                assert is_closed(client)
    assert not caplog.records
    assert not logging.getLogger("python_multipart.multipart").isEnabledFor(logging.WARNING)
