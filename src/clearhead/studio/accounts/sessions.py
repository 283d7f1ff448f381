"""Log-in sessions: one row for each, so that logging out or a new password ends it at once."""

import hashlib
import secrets
import time
from typing import Final

from sqlalchemy import and_, bindparam, delete, func, insert, select

from clearhead.studio.accounts.accounts import Account
from clearhead.studio.learner.database import Database
from clearhead.studio.learner.tables import kept, learners, sessions
from clearhead.studio.web.context import SETTING

SECONDS: Final = 30 * 24 * 60 * 60  # how long a session lasts

# Built once: every request runs it, and building a statement takes longer than running it.
_WHOSE = (
    select(learners, kept.c.key, kept.c.value)
    .select_from(sessions.join(learners, sessions.c.learner == learners.c.id))
    .outerjoin(kept, and_(kept.c.learner == learners.c.id, func.substr(kept.c.key, 1, len(SETTING)) == SETTING))
    .where(sessions.c.key == bindparam("token"), sessions.c.since >= bindparam("since"))
)


class Sessions:
    """The sessions in a database. The cookie holds a random token, the table its hash."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, account: Account) -> str:
        """Open a session; return the token for the browser's cookie."""
        token = secrets.token_urlsafe(32)
        row = {"key": _hash(token), "learner": account.id, "since": time.time()}
        with self._database.writing() as connection:
            connection.execute(delete(sessions).where(sessions.c.since < time.time() - SECONDS))
            connection.execute(insert(sessions).values(row))
        return token

    def account(self, token: str) -> tuple[Account | None, dict[str, str]]:
        """Return whose session this is and their settings, in one statement; None and no settings if it has ended."""
        if not token:
            return None, {}
        with self._database.reading() as connection:
            rows = connection.execute(_WHOSE, {"token": _hash(token), "since": time.time() - SECONDS}).all()
        account = Account(*rows[0][:-2]) if rows else None
        if account is None or account.state != "active":
            return None, {}
        return account, {row.key.removeprefix(SETTING): row.value for row in rows if row.key is not None}

    def end(self, token: str) -> None:
        """Log out."""
        with self._database.writing() as connection:
            connection.execute(delete(sessions).where(sessions.c.key == _hash(token)))

    def end_all(self, account: Account) -> None:
        """Log this learner out everywhere."""
        with self._database.writing() as connection:
            connection.execute(delete(sessions).where(sessions.c.learner == account.id))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
