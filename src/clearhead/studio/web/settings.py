"""The settings with which a studio is started."""

import os
import re
import socket
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from clearhead.errors import OptionError
from clearhead.sandbox import Limits

_URL = re.compile(r"https?://[^\s/?#@]+/*")
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 — addresses that are every address of a machine, and so none to send
CORES = os.cpu_count() or 1
LOCAL = ("127.0.0.1", "localhost")


def _is_url(text: str) -> bool:
    """Return whether this is the address of a host."""
    try:
        return _URL.fullmatch(text) is not None and bool(urlsplit(text).hostname)
    except ValueError:  # as of "http://[::1"
        return False


@dataclass(frozen=True)
class Settings:
    """Where the studio listens, what it teaches, and where it keeps the learner's work.

    Args:
        data: folder for the database, its backups, the secret and the proof cache; created if missing.
        host: the address to listen on. Any but this machine's own makes the studio a shared one, with accounts.
        port: the first port to try; 0 lets the system choose.
        accounts: require a log-in on this machine's own address too.
        certificate, key: PEM files, to serve https.
        url: the address at which learners reach a shared studio, if not its host and port: behind a proxy, by a name.
        database: a PostgreSQL URL for the attempts; None: an SQLite file in `data`.
        token: what a browser must show once to use a studio for one person, because other users of this machine can
            reach its address too; None: `serve` makes one; "": no token is required.
        proxies: addresses or networks of reverse proxies whose X-Forwarded headers are trusted; none by default.
        workers: number of serving processes; None: one per core for a shared studio on PostgreSQL, else one.
        packs: course packs to teach; None: the shipped ones.
    """

    data: Path = field(default_factory=lambda: platformdirs.user_data_path("clearhead"))
    host: str = "127.0.0.1"
    port: int = 8765
    packs: tuple[Path, ...] | None = None
    database: str | None = None
    accounts: bool = False
    certificate: Path | None = None
    key: Path | None = None
    url: str | None = None
    token: str | None = None
    proxies: tuple[str, ...] = ()
    workers: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise OptionError(f"port is {self.port}, expected 0 to 65535. Leave --port out to use 8765.")
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"workers is {self.workers}, expected 1 or more.")
        if (self.workers or 1) > 1 and self.database is None:
            raise OptionError("several workers need a database that several processes write to: give --database too.")
        if (self.certificate is None) != (self.key is None):
            raise OptionError("https needs both --certificate and --key; one of them is missing.")
        for proxy in self.proxies:
            _check_proxy(proxy)
        if self.url is not None and not _is_url(self.url):
            raise OptionError(
                f"the url is {self.url!r}, expected the address at which learners reach the studio, as in https://studio.example"
            )

    @property
    def shared(self) -> bool:
        """Whether other people use it; then everybody logs in, and programs must be confined."""
        return self.accounts or self.host not in LOCAL

    @property
    def processes(self) -> int:
        """The number of processes that serve it."""
        if self.workers is not None:
            return self.workers
        return CORES if self.shared and self.database is not None else 1

    @property
    def programs(self) -> int:
        """The number of learners' programs that run at once, over all processes: two per core, if memory allows.

        A program that is tested is two confined processes.
        """
        room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4
        fitting = room // (2 * Limits().memory)
        return max(1, min(2 * CORES, fitting))

    @property
    def hosts(self) -> frozenset[str]:
        """The names under which browsers reach it, in lower case."""
        named = {self.host.lower()} if self.host not in EVERYWHERE else set()
        if self.url:
            named.add((urlsplit(self.url).hostname or "").lower())
        return names_of_this_machine() | named if self.shared else frozenset({*LOCAL, "::1"}) | named

    def address(self, port: int) -> str:
        """Return the studio's address if it listens on this port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.url or f"{'https' if self.certificate else 'http'}://{host}:{port}").rstrip("/")

    def opens_at(self, port: int) -> str:
        """Return the address to open first, with the token if one is required."""
        address = self.address(port)
        return f"{address}/?token={self.token}" if self.token and not self.shared else address

    def invites_to(self, port: int) -> str:
        """Return the address for invitations; "" if it is unknown because the studio listens on every address."""
        return "" if self.url is None and self.host in EVERYWHERE else self.address(port)


def _check_proxy(proxy: str) -> None:
    # For uvicorn, "*" trusts everybody, who could then claim any address, and a name matches no proxy.
    try:
        ip_network(proxy)
    except ValueError as problem:
        raise OptionError(
            f"the trusted proxy is {proxy!r}, expected its address or network, as in "
            f"127.0.0.1 or 10.1.0.0/24 ({problem})"
        ) from problem


@lru_cache(maxsize=1)
def names_of_this_machine() -> frozenset[str]:
    """Return localhost and the names of this machine."""
    own = socket.gethostname().lower()
    return frozenset({"localhost", "127.0.0.1", "::1", own, f"{own}.local", socket.getfqdn().lower()})
