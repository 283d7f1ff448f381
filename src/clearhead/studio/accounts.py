"""Learners of a shared studio: invitations, passwords, sessions.

A password is kept as an Argon2id hash. An invitation and a session are signed texts that name the learner and carry a
fingerprint of the hash they were made under: a new password ends all of them, and an invitation works once.
"""

import hashlib
import hmac
import math
import secrets
import shlex
import time
import unicodedata
from dataclasses import dataclass
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from itsdangerous import BadSignature, URLSafeTimedSerializer
from sqlalchemy import delete, func, select, text, update

from clearhead.errors import OptionError
from clearhead.studio import names
from clearhead.studio.database import Database
from clearhead.studio.tables import learners, waits

DAY = 24 * 60 * 60
INVITED, LOGGED_IN = 7 * DAY, 30 * DAY  # seconds an invitation and a session are good for
SHORTEST, LONGEST = 10, 200  # characters of a password
GONE = "removed "  # what a removed learner's password begins with: no hash, so it fits nothing


@dataclass(frozen=True)
class Account:
    """A learner: his number in the database, his name, the hash of his password (empty before he took his place)."""

    id: int
    name: str
    password: str

    @property
    def state(self) -> str:
        """active, invited or removed."""
        return "removed" if self.password.startswith(GONE) else "active" if self.password else "invited"

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.password.encode()).hexdigest()[:16]


class Accounts:
    """The learners in a database."""

    def __init__(self, database: Database, secret: str) -> None:
        self._database = database
        self._hasher = PasswordHasher()
        self._two_at_a_time = BoundedSemaphore(2)  # a hash takes 64 MiB
        self._invitations = URLSafeTimedSerializer(secret, salt="invitation")
        self._sessions = URLSafeTimedSerializer(secret, salt="session")
        self._nobodys = self._hasher.hash(secrets.token_hex())

    def all(self) -> list[Account]:
        """Every learner, removed ones too, in the order they were invited."""
        with self._database.reading() as connection:
            return [Account(*row) for row in connection.execute(select(learners).order_by(learners.c.id))]

    def add(self, name: str) -> str:
        """Make a place for somebody new; gives the invitation with which he chooses his password.

        Raises:
            OptionError: the name is taken in this or another spelling, or it cannot be a name.
        """
        name = names.checked(name)
        with self._database.writing() as connection:
            if self._database.is_postgresql:  # SQLite has one writer at a time
                connection.execute(text("LOCK TABLE learners IN SHARE ROW EXCLUSIVE MODE"))
            new = self._database.insert(learners).values(name=name, password="").on_conflict_do_nothing()
            id = connection.execute(new.returning(learners.c.id)).scalar()
            others = connection.execute(select(learners.c.name).where(learners.c.id != (id or 0))).scalars()
            taken = next((other for other in others if names.key(other) == names.key(name)), None)
            if taken is not None:
                raise OptionError(
                    f"{taken} is here already. For a new password: clearhead studio user reset {shlex.quote(taken)}"
                )
        return self._invitation(self._named(name))

    def reset(self, name: str) -> str:
        """A new invitation: the old password holds until it is used."""
        return self._invitation(self._named(name))

    def remove(self, name: str) -> Account:
        """Let him in no more, now. His answers stay, and his number is never given to somebody else."""
        return self._write(self._named(name), GONE + secrets.token_hex())

    def invited(self, token: str) -> Account | None:
        """Whose invitation this is; None where it is no longer good."""
        return self._of(self._invitations, token, INVITED)

    def join(self, account: Account, password: str) -> Account:
        """Give the account this password."""
        with self._two_at_a_time:
            return self._write(account, self._hasher.hash(_composed(password)))

    def check(self, name: str, password: str) -> Account | None:
        """The account, if the password is right. An unknown name takes as long as a wrong password."""
        account = self._known(name)
        try:
            with self._two_at_a_time:
                self._hasher.verify(
                    account.password if account and account.password else self._nobodys, _composed(password)
                )
        except (VerificationError, InvalidHashError):
            return None
        return account

    def session(self, account: Account) -> str:
        """What the browser's cookie holds."""
        return str(self._sessions.dumps([account.id, account.fingerprint]))

    def who(self, session: str) -> Account | None:
        """Whose session this is; None where it is no longer good."""
        account = self._of(self._sessions, session, LOGGED_IN)
        return account if account and account.state == "active" else None

    def _invitation(self, account: Account) -> str:
        return str(self._invitations.dumps([account.id, account.fingerprint]))

    def _of(self, signer: URLSafeTimedSerializer, token: str, seconds: int) -> Account | None:
        try:
            id, fingerprint = signer.loads(token, max_age=seconds)
        except (BadSignature, ValueError, TypeError):
            return None
        with self._database.reading() as connection:
            row = connection.execute(select(learners).where(learners.c.id == id)).one_or_none()
        account = Account(*row) if row else None
        return account if account and account.fingerprint == fingerprint else None

    def _known(self, name: str) -> Account | None:
        """The account of this name: spelled so, or else the only one that is the same name in another spelling."""
        every = self.all()
        composed, same = _composed(name), [one for one in every if names.key(one.name) == names.key(name)]
        exact = next((one for one in same if one.name == composed), None)
        return exact or (same[0] if len(same) == 1 else None)

    def _named(self, name: str) -> Account:
        account = self._known(name)
        if account is None:
            known = ", ".join(one.name for one in self.all()) or "nobody yet"
            raise OptionError(f"there is no {name!r} here; there are: {known}")
        return account

    def _write(self, account: Account, password: str) -> Account:
        with self._database.writing() as connection:
            connection.execute(update(learners).where(learners.c.id == account.id).values(password=password))
        return Account(account.id, account.name, password)


class Patience:
    """Slows down who guesses passwords: after a few failures each further one doubles the wait, up to an hour.

    Kept in the database, so that a restart gives nobody new tries and several programs over one database count as one.
    What is kept is a keyed hash: a password typed in place of a name is in no table.
    """

    FREE, FIRST, LONGEST = 5, 30.0, 3600.0
    MOST = 10_000  # keys kept; past that, those that need not wait are forgotten

    def __init__(self, database: Database, secret: str) -> None:
        self._database = database
        self._secret = hashlib.sha256(f"waits {secret}".encode()).digest()

    def wait(self, *keys: str, now: float | None = None) -> int:
        """Seconds until the next try under any of these keys (a name, an address)."""
        now = time.time() if now is None else now
        query = select(waits.c.failures, waits.c.last).where(waits.c.key.in_([self._hidden(key) for key in keys]))
        with self._database.reading() as connection:
            found = max((_until(*row) - now for row in connection.execute(query)), default=0.0)
        return math.ceil(min(found, self.LONGEST)) if found > 0 else 0  # a clock may have been set back

    def failed(self, *keys: str, now: float | None = None) -> None:
        """A wrong password under these keys."""
        now = time.time() if now is None else now
        rows = [{"key": key, "failures": 1, "last": now} for key in sorted(map(self._hidden, keys))]
        new = self._database.insert(waits).values(rows)
        more = {"failures": waits.c.failures + 1, "last": new.excluded.last}
        with self._database.writing() as connection:
            connection.execute(delete(waits).where(waits.c.last < now - DAY))
            if connection.execute(select(func.count()).select_from(waits)).scalar_one() > self.MOST:
                connection.execute(delete(waits).where(waits.c.failures < self.FREE))
            connection.execute(new.on_conflict_do_update(index_elements=["key"], set_=more))

    def passed(self, *keys: str) -> None:
        """A right password: the count starts again."""
        with self._database.writing() as connection:
            connection.execute(delete(waits).where(waits.c.key.in_([self._hidden(key) for key in keys])))

    def _hidden(self, key: str) -> str:
        return hmac.new(self._secret, key.encode("utf-8", "replace"), "sha256").hexdigest()


def _composed(typed: str) -> str:
    """What was typed, whichever way the keyboard makes its accents."""
    return unicodedata.normalize("NFC", typed)


def _until(failures: int, last: float) -> float:
    """When the next try is possible."""
    if failures < Patience.FREE:
        return 0.0
    return last + min(Patience.FIRST * 2.0 ** min(failures - Patience.FREE, 20), Patience.LONGEST)
