"""Open another program's SQLite file: read-only, tables only, with bounds on the cost of a query."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from clearhead.errors import PackError

LONGEST_VALUE: Final = 4 << 20  # bytes of one field
MOST_ROWS: Final = 1_000_000  # of one table
MOST_BYTES: Final = 64 << 20  # of all rows that are read
MOST_STEPS: Final = 200_000_000  # of SQLite's virtual machine: a million notes take a few dozen each
_EVERY: Final = 100_000  # steps between two checks of the count
_LIMITS: Final = (
    (sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE), (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 100_000),
    (sqlite3.SQLITE_LIMIT_COLUMN, 200), (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 50),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
    (sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 1), (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
)  # fmt: skip
_SETTINGS: Final = ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "query_only=ON", "cache_size=-8000")
_ALLOWED: Final = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ)
_PRAGMAS: Final = ("table_xinfo",)


@contextmanager
def opened(place: Path, file: str) -> Iterator["Collection"]:
    """Open the database at `place`; errors call it `file`.

    Raises:
        PackError: it has views, triggers, virtual tables or computed columns; or, while reading, it turns out to be
            damaged or exceeds the limits.
    """
    try:
        with closing(sqlite3.connect(f"{place.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            yield Collection(connection, file)
    except sqlite3.Error as error:
        if "interrupted" in str(error):
            raise PackError("its collection takes too long to read; export a smaller deck", file=file) from None
        raise PackError(f"its collection cannot be read: {error}", file=file) from None


class Collection:
    """Tables and their rows. Callers pass no SQL, only the names of a table and its columns."""

    def __init__(self, connection: sqlite3.Connection, file: str) -> None:
        self._connection, self._file = connection, file
        self._steps = self._bytes = 0
        for category, most in _LIMITS:
            connection.setlimit(category, most)
        for setting in _SETTINGS:
            connection.execute(f"PRAGMA {setting}")
        connection.create_collation("unicase", lambda a, b: (a.lower() > b.lower()) - (a.lower() < b.lower()))
        connection.set_progress_handler(self._count, _EVERY)
        connection.set_authorizer(_authorize)
        self._refuse_programs()

    def columns(self, table: str) -> set[str]:
        """Return the names of a table's columns; none if there is no such table."""
        described = self._connection.execute(f"PRAGMA table_xinfo({table})").fetchall()
        for _, name, *_rest, hidden in described:
            if hidden:
                raise self._holds_program(f"the column {table}.{name} is computed")
        return {str(row[1]) for row in described}

    def rows(self, table: str, *columns: str) -> Iterator[tuple[Any, ...]]:
        """Yield these columns of every row, '' for a column that the table lacks; nothing if there is no such table."""
        known = self.columns(table)
        if not known:
            return
        shown = ", ".join(name if name in known else "''" for name in columns)
        selected = self._connection.execute(f"SELECT {shown} FROM {table} NOT INDEXED")  # noqa: S608 — our own names
        for number, row in enumerate(selected, 1):
            self._bytes += sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
            if number > MOST_ROWS or self._bytes > MOST_BYTES:
                message = f"its table {table} has more than {MOST_ROWS:,} rows or {MOST_BYTES:,} bytes"
                raise PackError(f"{message}; export a smaller deck", file=self._file)
            yield row

    def _refuse_programs(self) -> None:
        """Refuse views, triggers and virtual tables: they are programs that run when something is read."""
        master = self._connection.execute("SELECT type, name, rootpage FROM sqlite_master")
        for number, (kind, name, page) in enumerate(master, 1):
            if number > 1000:
                raise PackError("its collection has more than 1,000 tables; Anki has 20", file=self._file)
            if kind not in ("table", "index") or not page:
                raise self._holds_program(f"{name} is a {kind if page == 0 and kind != 'table' else 'virtual table'}")

    def _holds_program(self, why: str) -> PackError:
        message = f"its collection holds a program ({why[:200]!s}), which Anki never writes; export the deck again"
        return PackError(message, file=self._file)

    def _count(self) -> int:
        self._steps += _EVERY
        return self._steps > MOST_STEPS


def _authorize(action: int, first: str | None, *_: str | None) -> int:
    """Allow reading tables, and nothing else: no function, no ATTACH, no other PRAGMA."""
    named = action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS
    return sqlite3.SQLITE_OK if named or action in _ALLOWED else sqlite3.SQLITE_DENY
