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
        host: the address to listen on. Only this machine's own, until there are accounts.
        port: the first port to try; 0 asks the system for any.
        database: a PostgreSQL URL to keep attempts in; None is an SQLite file in `data`.
        packs: course packs to teach; None is the shipped ones.
    """

    data: Path = field(default_factory=lambda: platformdirs.user_data_path("clearhead"))
    host: str = "127.0.0.1"
    port: int = 8765
    packs: tuple[Path, ...] | None = None
    database: str | None = None

    def __post_init__(self) -> None:
        if self.host not in LOCAL:
            raise OptionError(
                f"host is {self.host!r}, but the studio listens on this machine only (127.0.0.1): it has no accounts, "
                "so anybody who reached it could read and change your work. Leave --host out."
            )
        if not 0 <= self.port <= 65535:
            raise OptionError(f"port is {self.port}, expected 0 to 65535. Leave --port out to use 8765.")
