"""Serve the studio: take a port, prove the course while serving, and stop cleanly on Ctrl-C."""

import errno
import logging
import os
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from clearhead import sandbox
from clearhead.console import console as terminal
from clearhead.errors import OptionError, SandboxError
from clearhead.extras import STUDIO, needs
from clearhead.printing import clean

with needs(*STUDIO):
    import uvicorn
    import uvicorn.logging
    from fastapi import FastAPI
    from starlette.types import ASGIApp

    from clearhead.studio.accounts import users
    from clearhead.studio.accounts.accounts import Accounts
    from clearhead.studio.app import application, workers
    from clearhead.studio.app.browser import graphical_browser
    from clearhead.studio.app.connections import Connection
    from clearhead.studio.lens import model_list
    from clearhead.studio.library.library import Library, prove, unproved
    from clearhead.studio.web.context import Context
    from clearhead.studio.web.settings import LOCAL, Settings

TRIES = 50  # ports after the wanted one
_CLEAN = {
    "()": "clearhead.studio.app.serving.CleanFormatter",
    "fmt": "%(levelprefix)s %(message)s",
    "use_colors": False,
}
_LOG = {
    **uvicorn.config.LOGGING_CONFIG,
    "formatters": {**uvicorn.config.LOGGING_CONFIG["formatters"], "default": _CLEAN},
    "filters": {"attention": {"()": "clearhead.studio.app.serving.NeedsAttention"}},
    "loggers": {
        **uvicorn.config.LOGGING_CONFIG["loggers"],
        "uvicorn.error": {"level": "INFO", "filters": ["attention"]},
        "python_multipart": {"level": "ERROR"},  # it warns of every form that is not well-formed
    },
}
_NOISE = ("Cancel ", "Invalid HTTP request", "Unsupported upgrade request", "No supported WebSocket library")


def serve(settings: Settings, *, browser: bool = True) -> None:
    """Serve the studio until Ctrl-C.

    Args:
        browser: open a browser on it, if there is a graphical one; never under CI.

    Raises:
        OptionError: no port is free.
        SandboxError, StoreError, PackError: see `app.create`.
    """
    console = terminal(soft_wrap=True)
    _check_certificate(settings)
    if settings.token is None:
        settings = replace(settings, token=secrets.token_urlsafe(24))
    with take_port(settings.host, settings.port) as listener:
        port = listener.getsockname()[1]
        studio = application.create(settings, unproved(settings.packs))
        address = settings.opens_at(port)
        if settings.port not in (0, port):
            console.print(f"Port {settings.port} is taken; using {port}.")
        where = studio.state.context.store.database.where if settings.database else settings.data
        console.print(f"Clearhead studio: {address}\nYour work is saved in {where}. Ctrl-C stops.")
        if settings.shared:
            users.remember_address(studio.state.context.store, settings.invites_to(port))
            _print_accounts(settings, studio.state.accounts, console)
        window = graphical_browser() if browser and not os.environ.get("CI") else None
        show = None if window is None else partial(window.open, address)
        if settings.processes > 1:
            studio.state.context.store.close()
            workers.run(work, settings, listener, settings.processes)
        else:
            with model_list.fetching():
                _run(studio, settings, listener, console, show)
    console.print("Stopped.")


def work(settings: Settings, listener: socket.socket, number: int) -> None:
    """Run one of several processes: all of them prove and serve, and the first shows the progress of the proofs."""
    sandbox.share(settings.processes)
    console = terminal(soft_wrap=True, quiet=number > 0)
    with model_list.fetching() if number == 0 else nullcontext():
        _run(application.create(settings, unproved(settings.packs)), settings, listener, console)


def _run(
    studio: FastAPI,
    settings: Settings,
    listener: socket.socket,
    console: Console,
    show: Callable[[], object] | None = None,
) -> None:
    if settings.shared:
        sandbox.low_priority()  # pages run before programs
    server = uvicorn.Server(config(studio, settings))
    if show is not None:
        _when_up(server, show)
    with _proving(settings, studio.state.context, console), suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def config(studio: ASGIApp, settings: Settings) -> uvicorn.Config:
    """Return the configuration of the server."""
    return uvicorn.Config(
        studio,
        log_level="warning",
        log_config=_LOG,
        lifespan="on",
        # h11 refuses headers beyond 64 KiB. httptools, which uvicorn prefers if it is installed, accepts any length, in
        # quadratic time.
        http=Connection,
        ws="none",  # no route takes a WebSocket, whose connection would be no `Connection`
        server_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies),
        timeout_graceful_shutdown=3,
        # A learner thinks longer than uvicorn's five seconds; keeping the connection saves opening another.
        timeout_keep_alive=75,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
    )


def _check_certificate(settings: Settings) -> None:
    """Raise OptionError if https cannot be served with these files."""
    if settings.certificate is None or settings.key is None:
        return
    for name, file in (("certificate", settings.certificate), ("key", settings.key)):
        try:
            file.read_bytes()
        except OSError as problem:
            raise OptionError(f"the {name} {file} cannot be read: {problem.strerror}. Give a PEM file.") from problem

    def no_password() -> str:
        raise OptionError(
            f"the key {settings.key} has a password. Give a key without one: the studio cannot ask for it."
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.certificate, settings.key, no_password)
    except ssl.SSLError as problem:
        raise OptionError(
            f"https cannot be served with {settings.certificate} and {settings.key}: {problem.reason or problem}. "
            "Give a certificate and its own private key, both in PEM."
        ) from problem


def _print_accounts(settings: Settings, accounts: Accounts, console: Console) -> None:
    """Print who may log in, and what is missing before learners can be invited safely."""
    count = sum(account.state != "removed" for account in accounts.all())
    who = f"{count} may log in" if count else "Nobody can log in yet"
    console.print(f"{who}; invite somebody: clearhead studio user add NAME")
    if not settings.invites_to(0):
        console.print(
            "Invitations need to know where learners reach it: give --url, as in --url http://192.168.1.7:8765"
        )
    if not settings.certificate and settings.host not in LOCAL:
        console.print(
            "Passwords are sent unencrypted: give --certificate and --key, or put an HTTPS proxy in front of it.",
            style="bold",
        )


def take_port(host: str, port: int) -> socket.socket:
    """Return a listening socket on `port`, or on the next free one; 0 takes any.

    Raises:
        OptionError: none of the next ports is free either, or the host is not an address of this machine.
    """
    last: OSError | None = None
    if not host:
        raise OptionError("the host is empty. Give --host 127.0.0.1, or 0.0.0.0 for every address of this machine.")
    for wanted in [port] if port == 0 else range(port, min(port + TRIES, 65536)):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio turns Nagle's algorithm off only for sockets that name TCP: without it every answer on a kept
        # connection waits 40 ms for the acknowledgement that the other side delays (a page took 56 ms, now 6).
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, wanted))
            listener.listen(1024)  # a class that opens its browsers at once
        except (OSError, UnicodeError, TypeError) as problem:  # TypeError: no name of a host in any encoding
            listener.close()
            if not isinstance(problem, OSError) or isinstance(problem, socket.gaierror) or _elsewhere(problem):
                raise OptionError(
                    f"{host} is not an address of this machine ({getattr(problem, 'strerror', None) or problem}). "
                    "Use --host 127.0.0.1, or 0.0.0.0 for every address it has."
                ) from problem
            if problem.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise OptionError(f"{host} cannot be listened on: {problem}. Use --host 127.0.0.1") from problem
            last = problem
        else:
            return listener
    raise OptionError(f"no port from {port} on is free ({last}). Choose another: clearhead studio --port N")


def _elsewhere(problem: OSError) -> bool:
    return problem.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class CleanFormatter(uvicorn.logging.DefaultFormatter):
    """Formats the server's log without anything that a terminal acts on: tracebacks quote what was sent."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record))


class NeedsAttention(logging.Filter):
    """Drops what needs nobody: each line of the log is a problem that needs somebody.

    A tab left open keeps a connection; uvicorn reports closing it as an error, which on Ctrl-C it is not. And anybody
    can send a request that is not HTTP or asks for a WebSocket: a line for each would fill the log.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_NOISE)


class _Stopped(Exception):
    """The studio is closing; the remaining items are proved at the next start."""


@contextmanager
def _proving(settings: Settings, context: Context, console: Console) -> Iterator[None]:
    """Prove the course while the studio serves: each question appears as soon as its answer has been computed."""
    stop = threading.Event()
    columns = (TextColumn("Computing the answers"), BarColumn(), MofNCompleteColumn(), TextColumn("questions"))
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task("prove", total=context.library.coming)

    def publish(library: Library) -> None:
        if stop.is_set():
            raise _Stopped
        context.set_library(library)
        bar.update(task, completed=len(library.proved) + len(library.failed))

    def work() -> None:
        try:
            with bar:
                prove(context.library, settings.data / "proofs", publish)
        except _Stopped:
            return
        except SandboxError as problem:
            console.print(f"No question can be asked: {problem}")
            context.set_library(replace(context.library, coming=0))
        for outcome in context.library.failed:
            console.print(f"Left out: {outcome.file}:{outcome.line or 1}: {outcome.error}", style="dim")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _when_up(server: uvicorn.Server, act: Callable[[], object]) -> None:
    def wait() -> None:
        while not server.started:
            if server.should_exit:
                return
            threading.Event().wait(0.05)
        act()

    threading.Thread(target=wait, daemon=True).start()
