"""The database of attempts: an SQLite file in the data folder, or a PostgreSQL database given by its URL."""

import json
import math
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, InvalidatePoolError, OperationalError

from clearhead.errors import OptionError, StoreError
from clearhead.extras import needs
from clearhead.messages import Message, message
from clearhead.studio.learner import migrate

FILE = "clearhead.db"
KEPT = ("secret", FILE, f"{FILE}-wal", f"{FILE}-shm", "locks", "lens", "proofs", migrate.BACKUPS)
POSTGRESQL = "postgresql+psycopg"
IDLE = 1.0  # seconds after which a connection is checked before it is used: its server may have been restarted


class Database:
    """An open database, migrated to the newest layout.

    Args:
        folder: for the SQLite file, and for the copies made before each migration.
        url: `postgresql://user@host/name`; None keeps the attempts in `folder`.

    Raises:
        StoreError: it cannot be read or is damaged; it is left unchanged.
        OptionError: the URL is not one of PostgreSQL.
        ExtraError: the driver is missing.

    Attributes:
        where: the file, or the URL without its password.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder
        self._file = folder / FILE if url is None else None
        place = None if url is None else postgresql_url(url)
        self.where = str(self._file if place is None else place.set(drivername="postgresql"))
        with self._explained():
            private_folder(folder)
        _check_owners(folder)
        with self._explained():
            self.engine = _of_file(folder / FILE) if place is None else _of_server(place)
        # Each statement sees one state of the data without a transaction, which would be two more statements.
        # Connections to a server commit each statement unless told otherwise, since changing that takes longer than
        # most statements.
        reader, writer = ({}, {"isolation_level": "READ COMMITTED"}) if self.is_postgresql else ({"begin": None}, {})
        self._reader, self._writer = (self.engine.execution_options(**options) for options in (reader, writer))
        with self._explained():
            migrate.upgrade(self._writer, self.where, folder)

    @property
    def is_postgresql(self) -> bool:
        """Whether this is a server, which several programs may write to at once."""
        return self.engine.dialect.name == "postgresql"

    def insert(self, table: Any) -> Any:
        """Return an INSERT that supports ON CONFLICT."""
        return postgresql.insert(table) if self.is_postgresql else sqlite.insert(table)

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """A connection that commits each statement by itself: to read, or for a change that is one statement."""
        with self._explained(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction: when the block ends without an exception, all changes are on disk; otherwise none are made."""
        with self._explained(), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close the database; SQLite merges its log into the file."""
        self.engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of the database and the file system into a StoreError that says what to do."""
        try:
            yield
        except (sqlite3.Error, DatabaseError, OSError) as problem:
            reason = str(getattr(problem, "orig", None) or problem).strip().split("\n")[0]
            if self._file:
                way_out = _way_out(reason, self.folder, isinstance(problem, OSError))
            else:
                way_out = message(
                    "To go on, see that the server runs and that the URL names a database this user may change"
                )
            error = StoreError(
                message(
                    "your work in %(where)s cannot be used: %(reason)s. Nothing in it was changed. %(way_out)s",
                    where=self.where,
                    reason=reason,
                    way_out=way_out,
                )
            )
            error.temporary = isinstance(problem, OperationalError) and (not self._file or "locked" in reason)
            raise error from problem


def private_folder(folder: Path) -> None:
    """Create the folder, readable only by its owner, whatever the umask.

    An existing folder keeps its mode, because others may use it (`--data /tmp`), unless it is the default folder. The
    files in it are private in both cases.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    elif folder == platformdirs.user_data_path("clearhead"):
        folder.chmod(0o700)


def _check_owners(folder: Path) -> None:
    """Raise StoreError if another user, who may write in the folder, made a file that the studio keeps there.

    Anybody who made the secret can log in as any user, and anybody who made the proofs can change the answers.
    """
    if not stat.S_IMODE(folder.stat().st_mode) & 0o022:
        return
    for name in KEPT:
        path = folder / name
        with suppress(FileNotFoundError):
            if path.lstat().st_uid != os.geteuid() or path.is_symlink():
                raise StoreError(
                    message(
                        "%(path)s was made by another user, who may write in that folder, or is a link. Start with a "
                        "folder of your own: clearhead studio --data DIR",
                        path=path,
                    )
                )


def private_file(path: Path) -> None:
    """Create the file if it does not exist, readable only by its owner, whatever the umask."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))
    path.chmod(0o600)


def postgresql_url(url: str) -> URL:
    """Return the URL with the driver this studio uses.

    >>> postgresql_url("postgresql://ada@db.example/course").drivername
    'postgresql+psycopg'
    """
    try:
        place = make_url(url)
    except (ArgumentError, ValueError) as problem:
        raise OptionError(f"the database {url!r} is not a URL. Write postgresql://USER@HOST/NAME") from problem
    if place.drivername not in ("postgres", "postgresql", POSTGRESQL):
        raise OptionError(
            f"the database is {place.drivername!r}, expected postgresql://USER@HOST/NAME. Without --database the "
            "attempts are kept in an SQLite file in the data folder."
        )
    with needs("postgresql", "PostgreSQL"):
        import psycopg as psycopg
    return place.set(drivername=POSTGRESQL)


def _of_server(place: URL) -> Engine:
    engine = create_engine(
        place,
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,  # every transaction is ended by the code that began it
        json_serializer=json.dumps,
        connect_args={"connect_timeout": 10},
    )

    connection_error = engine.dialect.loaded_dbapi.Error

    @event.listens_for(engine, "checkin")
    def used(_connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def check(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("used", math.inf) > IDLE:
            try:
                connection.execute("")
            except connection_error as problem:
                raise InvalidatePoolError from problem  # makes the pool reopen its connections

    return engine


def _of_file(path: Path) -> Engine:
    _inspect(path)
    private_file(path)  # SQLite gives its log and its index the mode of the database
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 5}, json_serializer=json.dumps)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # sqlite3 begins no transaction before DDL; `begin` below does
        # WAL: a reader never waits for a writer. FULL: an attempt is on disk before the page confirms it.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if statement := connection.get_execution_options().get("begin", "BEGIN"):
            connection.exec_driver_sql(str(statement))

    return engine


def _inspect(path: Path) -> None:
    """Check the file for damage before anything writes to it."""
    if not path.exists():
        return
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
    try:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
    finally:
        connection.close()


def _way_out(reason: str, folder: Path, of_the_system: bool) -> Message:
    if "locked" in reason:
        return message(
            "To go on, close the other program that holds it and try again, or start with another folder: "
            "clearhead studio --data DIR"
        )
    if of_the_system or any(word in reason for word in ("full", "readonly", "disk I/O")):
        return message(
            "To go on, make room or give yourself the right to write there, or start with another folder: "
            "clearhead studio --data DIR"
        )
    backups = sorted((folder / migrate.BACKUPS).glob("*.db"))
    if backups:
        return message(
            "To go on, copy the newest backup, %(backup)s, over it, or start with another folder: "
            "clearhead studio --data DIR",
            backup=backups[-1],
        )
    return message(
        "To go on, move that file away (the studio then starts a new one), or start with another folder: "
        "clearhead studio --data DIR"
    )
