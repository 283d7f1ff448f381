"""What the learner did, kept: one SQLite file, and in it a table of attempts that only ever grows.

Nothing derived is stored: schedule and mastery are rebuilt from the attempts (docs/decisions/0009). An attempt's id
is made when its question is shown, so a form sent twice, or from two tabs, counts once.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError

from clearhead.course import Attempt
from clearhead.errors import StoreError
from clearhead.studio import migrate

FILE = "clearhead.db"
metadata = MetaData()

attempts = Table(
    "attempts",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("item_id", String(200), nullable=False, index=True),
    Column("item_rev", Integer, nullable=False),
    Column("at", String(32), nullable=False),  # ISO 8601, UTC: sorts as text and reads in any tool
    Column("mode", String(32), nullable=False),
    Column("correct", Boolean, nullable=False),
    Column("response", JSON, nullable=False),
    Column("seconds", Float),
    Column("seed", Integer, nullable=False),
    Column("confidence", Float),
    Column("hints", Integer, nullable=False),
    Column("undoes", String(36), unique=True),
)

kept = Table(
    "kept",
    metadata,
    Column("key", String(200), primary_key=True),
    Column("value", Text, nullable=False),
)


class Store:
    """The learner's attempts and settings, in `folder`.

    Raises:
        StoreError: the file cannot be read or is damaged. It is left as it was.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        with _explained(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            _inspect(self.path)
            self._engine = _engine(self.path)
            migrate.upgrade(self._engine, self.path)

    def record(self, attempt: Attempt) -> bool:
        """Add an attempt, on disk when this returns. False where it was already there, and then nothing changes."""
        row = {
            "id": attempt.id,
            "item_id": attempt.item_id,
            "item_rev": attempt.item_rev,
            "at": attempt.at.astimezone(UTC).isoformat(),
            "mode": attempt.mode,
            "correct": attempt.correct,
            "response": attempt.response,
            "seconds": attempt.seconds,
            "seed": attempt.seed,
            "confidence": attempt.confidence,
            "hints": attempt.hints,
            "undoes": attempt.undoes,
        }
        with self._writing() as connection:
            return connection.execute(insert(attempts).values(row).on_conflict_do_nothing()).rowcount == 1

    def attempts(self, after: int = 0) -> list[tuple[int, Attempt]]:
        """All attempts, undone ones and the undoing too, oldest first, each with its number in the file.

        `after` leaves out those up to and with that number, so that a caller who keeps a list reads only what is new.
        """
        query = select(attempts).where(attempts.c.number > after).order_by(attempts.c.number)
        with self._reading() as connection:
            return [(row.number, _attempt(row)) for row in connection.execute(query)]

    def attempt(self, attempt_id: str) -> Attempt | None:
        """The attempt with this id, or None."""
        with self._reading() as connection:
            row = connection.execute(select(attempts).where(attempts.c.id == attempt_id)).one_or_none()
        return None if row is None else _attempt(row)

    def undone(self, attempt_id: str) -> bool:
        """Whether a later attempt takes this one back."""
        with self._reading() as connection:
            found = connection.execute(select(func.count()).where(attempts.c.undoes == attempt_id))
            return bool(found.scalar_one())

    def keep(self, key: str, value: str) -> None:
        """Remember a setting, in place of what was kept under this key."""
        row = insert(kept).values(key=key, value=value)
        with self._writing() as connection:
            connection.execute(row.on_conflict_do_update(index_elements=["key"], set_={"value": value}))

    def kept(self, key: str, default: str = "") -> str:
        """What was kept under this key."""
        with self._reading() as connection:
            found = connection.execute(select(kept.c.value).where(kept.c.key == key)).scalar_one_or_none()
        return default if found is None else str(found)

    def kept_under(self, prefix: str) -> dict[str, str]:
        """Every setting whose key begins with `prefix`, without the prefix."""
        query = select(kept).where(kept.c.key.startswith(prefix, autoescape=True)).order_by(kept.c.key)
        with self._reading() as connection:
            return {row.key.removeprefix(prefix): row.value for row in connection.execute(query)}

    def close(self) -> None:
        """Give the file back; SQLite folds its log into it."""
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _explained(self.path), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with _explained(self.path), self._engine.begin() as connection:
            yield connection


def _attempt(row: Any) -> Attempt:
    fields = {name: value for name, value in row._mapping.items() if name not in ("number", "at")}
    return Attempt(**fields, at=datetime.fromisoformat(row.at))


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 5}, json_serializer=json.dumps)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        # WAL: a reader never waits for a writer. FULL: an attempt is on the disk before the page says so.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _inspect(path: Path) -> None:
    """Look for damage before anything may write to the file."""
    if not path.exists():
        return
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
    finally:
        connection.close()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system say into what to do about it."""
    try:
        yield
    except (sqlite3.Error, DatabaseError, OSError) as problem:
        said = getattr(problem, "orig", None) or problem
        backups = sorted((path.parent / migrate.BACKUPS).glob("*.db"))
        way_out = (
            f"copy the newest backup, {backups[-1]}, over it"
            if backups
            else "move that file away (the studio then starts a new one)"
        )
        if "locked" in str(said):
            way_out = "close the other program that holds it and try again"
        elif "full" in str(said) or "readonly" in str(said) or isinstance(said, OSError):
            way_out = "make room or give yourself the right to write there"
        raise StoreError(
            f"your work in {path} cannot be used: {said}. Nothing in it was changed. To go on, {way_out}, "
            "or start with another folder: clearhead studio --data DIR"
        ) from problem
