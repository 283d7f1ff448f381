"""Store a learner's attempts, in an append-only table, and the learner's settings and notes.

Nothing derived is stored: schedule and mastery are rebuilt from the attempts (docs/decisions/0009). An attempt gets its
id when its question is shown, so a form that is sent twice, or from two tabs, counts once.
"""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import and_, bindparam, delete, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from clearhead.course import Attempt
from clearhead.studio.learner.database import Database
from clearhead.studio.learner.tables import LOCAL, attempts, kept

START_AFTER: Final = "start-after"  # the key of the number up to which attempts do not count
_FIELDS = frozenset(column.name for column in attempts.c) - {"number", "learner", "at"}  # the fields of an Attempt
# Built once: building a statement takes longer than running it. Each is about one learner.
_MINE = attempts.c.learner == bindparam("learner")
_AFTER = select(attempts).where(_MINE, attempts.c.number > bindparam("after")).order_by(attempts.c.number)
_START = select(kept.c.value).where(kept.c.learner == bindparam("learner"), kept.c.key == START_AFTER)
_BEGIN = select(_START.scalar_subquery().label("start")).subquery()  # one row even if there are no new attempts
_NEWS = (
    select(_BEGIN.c.start, attempts)
    .select_from(_BEGIN.outerjoin(attempts, and_(_MINE, attempts.c.number > bindparam("after"))))
    .order_by(attempts.c.number)
)
_undoing = attempts.alias()
_UNDOING = select(_undoing.c.id).where(_undoing.c.learner == bindparam("learner"), _undoing.c.undoes == bindparam("id"))
_BY_ID = select(attempts, _UNDOING.exists().label("undone")).where(_MINE, attempts.c.id == bindparam("id"))
_KEPT = select(kept.c.value).where(kept.c.learner == bindparam("learner"), kept.c.key == bindparam("key"))
_DROP = delete(kept).where(kept.c.learner == bindparam("learner"), kept.c.key == bindparam("key"))
_KEPT_UNDER = (
    select(kept)
    .where(
        kept.c.learner == bindparam("learner"), func.substr(kept.c.key, 1, bindparam("length")) == bindparam("prefix")
    )
    .order_by(kept.c.key)
)
_VALUES: dict[str, Any] = {
    column.name: bindparam(column.name, type_=column.type) for column in attempts.c if column.name != "number"
}
_ADD = sqlite.insert(attempts).values(_VALUES).on_conflict_do_nothing().returning(attempts.c.number)
# One writer per learner at a time, as in SQLite. Then attempts become readable in the order of their numbers, and
# `attempts(after=…)` never skips one. The lock is taken before the row gets its number, and held until it is on disk.
_QUEUED = select(func.pg_advisory_xact_lock(bindparam("learner"))).subquery("queued")
_RECORD = (
    postgresql.insert(attempts)
    .from_select(list(_VALUES), select(*_VALUES.values()).select_from(_QUEUED))
    .on_conflict_do_nothing()
    .returning(attempts.c.number)
    .add_cte(_DROP.cte("dropped"))
)


def _keep(insert: Any) -> Any:
    """Return the statement that replaces a setting, in the dialect of this `insert`."""
    setting = insert(kept).values({name: bindparam(name) for name in ("learner", "key", "value")})
    return setting.on_conflict_do_update(index_elements=["learner", "key"], set_={"value": setting.excluded.value})


_KEEP_SQLITE, _KEEP_POSTGRESQL = _keep(sqlite.insert), _keep(postgresql.insert)


class Store:
    """One learner's attempts and settings in a database.

    Each method raises StoreError if the database cannot be used: it is damaged, full or unreachable.
    """

    def __init__(self, database: Database, learner: int = LOCAL) -> None:
        self.database = database
        self.learner = learner
        self.writes = 0  # attempts recorded through this object
        self._keep = _KEEP_POSTGRESQL if database.is_postgresql else _KEEP_SQLITE

    def record(self, attempt: Attempt, *, drop: str = "") -> bool:
        """Add an attempt; it is on disk when this returns. Return False if it exists already, and leave it unchanged.

        Args:
            drop: a key to delete in the same transaction.
        """
        row = {
            "learner": self.learner,
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
        if self.database.is_postgresql:
            # A transaction of three statements takes five round trips, which cost more than the statements.
            with self.database.autocommit() as connection:
                new = connection.execute(_RECORD, row | {"key": _text(drop)}).first() is not None
        else:
            with self.database.writing() as connection:
                new = connection.execute(_ADD, row).first() is not None
                if drop:
                    connection.execute(_DROP, self._mine(key=_text(drop)))
        self.writes += 1
        return new

    def attempts(self, after: int = 0) -> list[tuple[int, Attempt]]:
        """Return all attempts, including undone ones and the undoing, oldest first, each with its number in the table.

        `after` skips those up to and including that number, so that a caller who keeps a list reads only new ones.
        """
        with self.database.autocommit() as connection:
            return [(row.number, _attempt(row)) for row in connection.execute(_AFTER, self._mine(after=after))]

    def news(self, after: int) -> tuple[int, list[tuple[int, Attempt]]]:
        """Return the number up to which attempts do not count, and `attempts(after)`; in one statement."""
        with self.database.autocommit() as connection:
            rows = connection.execute(_NEWS, self._mine(after=after)).all()
        return int(rows[0].start or 0), [(row.number, _attempt(row)) for row in rows if row.number is not None]

    def attempt(self, attempt_id: str) -> Attempt | None:
        """Return the attempt with this id, or None."""
        return self.attempt_now(attempt_id)[0]

    def attempt_now(self, attempt_id: str) -> tuple[Attempt | None, bool]:
        """Return the attempt with this id, or None; and whether a later attempt takes it back."""
        with self.database.autocommit() as connection:
            row = connection.execute(_BY_ID, self._mine(id=_text(attempt_id))).one_or_none()
        return (None, False) if row is None else (_attempt(row), bool(row.undone))

    def undone(self, attempt_id: str) -> bool:
        """Return whether a later attempt takes this one back."""
        return self.attempt_now(attempt_id)[1]

    def keep(self, key: str, value: str) -> None:
        """Store a setting or a note under this key, replacing the old value."""
        with self.database.autocommit() as connection:
            connection.execute(self._keep, self._mine(key=_text(key), value=_text(value)))

    def kept(self, key: str, default: str = "") -> str:
        """Return the value stored under this key."""
        with self.database.autocommit() as connection:
            value = connection.execute(_KEPT, self._mine(key=_text(key))).scalar_one_or_none()
        return default if value is None else str(value)

    def drop(self, key: str) -> None:
        """Delete the value stored under this key."""
        with self.database.autocommit() as connection:
            connection.execute(_DROP, self._mine(key=_text(key)))

    def kept_under(self, prefix: str) -> dict[str, str]:
        """Return every setting whose key begins with `prefix`, without the prefix."""
        with self.database.autocommit() as connection:
            rows = connection.execute(_KEPT_UNDER, self._mine(prefix=prefix, length=len(prefix)))
            return {row.key.removeprefix(prefix): row.value for row in rows}

    def kept_under_each(self, *prefixes: str) -> list[dict[str, str]]:
        """Return `kept_under` for each of these prefixes, in one statement."""
        wanted = or_(*(func.substr(kept.c.key, 1, len(prefix)) == prefix for prefix in prefixes))
        with self.database.autocommit() as connection:
            rows = connection.execute(select(kept).where(kept.c.learner == self.learner, wanted)).all()
        return [
            {row.key.removeprefix(prefix): row.value for row in rows if row.key.startswith(prefix)}
            for prefix in prefixes
        ]

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def _mine(self, **values: object) -> dict[str, object]:
        return {"learner": self.learner, **values}


def _attempt(row: Any) -> Attempt:
    fields = {name: value for name, value in row._mapping.items() if name in _FIELDS}
    return Attempt(**fields, at=datetime.fromisoformat(row.at))


def _text(text: str) -> str:
    """Return the text without what a database cannot store: NUL, and lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
