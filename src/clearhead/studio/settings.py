"""What a studio is started with."""

from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from clearhead.errors import OptionError

LOCAL = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Settings:
    """Where the studio listens, what it teaches, and where it keeps the learner's work.

    Args:
        data: folder for the database, its backups, the secret and the proof cache; made when missing.
        host: the address to listen on. Another than this machine's own makes the studio a shared one, with accounts.
        port: the first port to try; 0 asks the system for any.
        accounts: ask who it is on this machine's own address too.
        certificate, key: PEM files, to serve https.
        database: a PostgreSQL URL to keep attempts in; None is an SQLite file in `data`.
        packs: course packs to teach; None is the shipped ones.
    """

    data: Path = field(default_factory=lambda: platformdirs.user_data_path("clearhead"))
    host: str = "127.0.0.1"
    port: int = 8765
    packs: tuple[Path, ...] | None = None
    database: str | None = None
    accounts: bool = False
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise OptionError(f"port is {self.port}, expected 0 to 65535. Leave --port out to use 8765.")
        if (self.certificate is None) != (self.key is None):
            raise OptionError("https needs both --certificate and --key; one of them is missing.")

    @property
    def shared(self) -> bool:
        """Whether other people use it: then each logs in, and programs must be confined."""
        return self.accounts or self.host not in LOCAL
