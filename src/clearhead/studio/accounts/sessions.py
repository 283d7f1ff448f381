"""Log-in sessions: one row for each, so that logging out or a new password ends it at once."""

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Final

from sqlalchemy import and_, bindparam, delete, func, insert, literal, or_, select

from clearhead.studio.accounts.accounts import Account
from clearhead.studio.learner.database import Database
from clearhead.studio.learner.history import State
from clearhead.studio.learner.store import START_AFTER
from clearhead.studio.learner.tables import attempts, kept, learners, sessions
from clearhead.studio.web.context import SETTING

SECONDS: Final = 30 * 24 * 60 * 60  # how long a session lasts

# Built once: every request runs it, and building a statement takes longer than running it.
_NEWEST = select(func.max(attempts.c.number)).where(attempts.c.learner == learners.c.id).scalar_subquery()
_SMALL = or_(func.substr(kept.c.key, 1, len(SETTING)) == SETTING, kept.c.key == START_AFTER)
_WHOSE = (
    select(learners, _NEWEST.label("newest"), kept.c.key, kept.c.value)
    .select_from(sessions.join(learners, sessions.c.learner == learners.c.id))
    .outerjoin(kept, and_(kept.c.learner == learners.c.id, _SMALL))
    .where(sessions.c.key == bindparam("token"), sessions.c.since >= bindparam("since"))
)


@dataclass(frozen=True)
class Session:
    """A session that was found: whose it is, their settings, and the state of their attempts."""

    account: Account
    settings: dict[str, str]
    state: State


class Sessions:
    """The sessions in a database. The cookie holds a random token, the table its hash."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, account: Account, instead_of: str = "") -> str | None:
        """Open a session and return the token for the browser's cookie. Return None if the password has changed.

        The browser's earlier session ends, because nobody could log out of it any more.

        The row of the account is locked, so that a new password ends every session opened with the old one.
        """
        token, now = secrets.token_urlsafe(32), time.time()
        same = and_(learners.c.id == account.id, learners.c.password == account.password)
        row = select(literal(_hash(token)), learners.c.id, literal(now)).where(same).with_for_update(read=True)
        with self._database.writing() as connection:
            ended = or_(sessions.c.since < now - SECONDS, sessions.c.key == _hash(instead_of))
            connection.execute(delete(sessions).where(ended))
            new = insert(sessions).from_select(["key", "learner", "since"], row).returning(sessions.c.key)
            opened = connection.execute(new).first()
        return token if opened else None

    def find(self, token: str) -> Session | None:
        """Return the session of this token, in one statement; None if it has ended."""
        if not token:
            return None
        with self._database.autocommit() as connection:
            rows = connection.execute(_WHOSE, {"token": _hash(token), "since": time.time() - SECONDS}).all()
        account = Account(*rows[0][:3]) if rows else None
        if account is None or account.state != "active":
            return None
        small = {row.key: row.value for row in rows if row.key is not None}
        state = State(newest=rows[0].newest or 0, set_aside=int(small.pop(START_AFTER, "0")))
        return Session(account, {key.removeprefix(SETTING): value for key, value in small.items()}, state)

    def end(self, token: str) -> None:
        """Log out."""
        with self._database.writing() as connection:
            connection.execute(delete(sessions).where(sessions.c.key == _hash(token)))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
