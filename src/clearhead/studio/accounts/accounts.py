"""Learners of a shared studio: invitations and passwords.

A password is stored as an Argon2id hash. An invitation is a signed text with the learner's number and a fingerprint of
the stored hash: setting a password invalidates it, so it works once.
"""

import hashlib
import secrets
import shlex
import unicodedata
from dataclasses import dataclass
from threading import Lock

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from itsdangerous import BadSignature, URLSafeTimedSerializer
from sqlalchemy import and_, bindparam, delete, select, text, update

from clearhead.errors import OptionError
from clearhead.studio.accounts import names
from clearhead.studio.learner.database import Database
from clearhead.studio.learner.tables import learners, sessions

DAY = 24 * 60 * 60
INVITED = 7 * DAY  # seconds an invitation is good for
SHORTEST, LONGEST = 10, 200  # characters of a password
_NAMES = select(learners.c.id, learners.c.name).where(learners.c.id > bindparam("last")).order_by(learners.c.id)
_BY_NUMBER = select(learners).where(learners.c.id == bindparam("id"))
GONE = "removed "  # prefix of a removed learner's password: not a hash, so nothing matches it


@dataclass(frozen=True)
class Account:
    """A learner: number in the database, name, and password hash (empty until the invitation is accepted)."""

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
        # OWASP's smaller setting for Argon2id: 23 ms and 19 MiB a password, where the library's default takes 191 ms
        # and 64 MiB, which a class that logs in at nine o'clock waits for.
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._invitations = URLSafeTimedSerializer(secret, salt="invitation")
        self._last = 0  # the number of the newest account that was read
        self._lock = Lock()
        self._by_key: dict[str, dict[int, str]] = {}  # key of a name -> numbers and names
        self._nobodys = self._hasher.hash(secrets.token_hex())

    def all(self) -> list[Account]:
        """Return every learner, including removed ones, in the order they were invited."""
        with self._database.autocommit() as connection:
            return [Account(*row) for row in connection.execute(select(learners).order_by(learners.c.id))]

    def add(self, name: str) -> str:
        """Add a learner; return the invitation with which they choose a password.

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
                    f"{taken} already has an account. For a new password: "
                    f"clearhead studio user reset {shlex.quote(taken)}"
                )
        return self._invitation(self._named(name))

    def reset(self, name: str) -> str:
        """Return a new invitation; the old password is valid until it is used."""
        return self._invitation(self._named(name))

    def remove(self, name: str) -> Account:
        """Lock a learner out at once and end every session. The answers stay, and the number is never reused."""
        account = self._named(name)
        return self._write(account, GONE + secrets.token_hex()) or self.remove(name)

    def invited(self, token: str) -> Account | None:
        """Return whose invitation this is; None if it is no longer valid."""
        try:
            id, fingerprint = self._invitations.loads(token, max_age=INVITED)
        except (BadSignature, ValueError, TypeError):
            return None
        with self._database.autocommit() as connection:
            row = connection.execute(select(learners).where(learners.c.id == id)).one_or_none()
        account = Account(*row) if row else None
        return account if account and account.fingerprint == fingerprint else None

    def join(self, account: Account, password: str) -> Account | None:
        """Give the account this password and end its sessions; None if its password has changed since it was read."""
        return self._write(account, self._hasher.hash(_composed(password)))

    def check(self, name: str, password: str) -> Account | None:
        """Return the account if the password is right. An unknown name takes as long as a wrong password.

        A password that was hashed with other parameters is rehashed with the current ones.
        """
        account = self._known(name)
        known = account is not None and account.state == "active"
        try:
            self._hasher.verify(account.password if account and known else self._nobodys, _composed(password))
        except (VerificationError, InvalidHashError):
            return None
        if account and known and self._hasher.check_needs_rehash(account.password):
            renewed = self._hasher.hash(_composed(password))
            account = self._write(account, renewed, ends_sessions=False)  # None: the password has changed meanwhile
        return account if known else None

    def _invitation(self, account: Account) -> str:
        return str(self._invitations.dumps([account.id, account.fingerprint]))

    def _known(self, name: str) -> Account | None:
        """Return the account with this name in this spelling, or else the only one with it in another spelling."""
        with self._lock, self._database.autocommit() as connection:
            # Numbers only grow and names never change, so a log-in reads only accounts that are new since the last one.
            for id, new in connection.execute(_NAMES, {"last": self._last}):
                self._last = id
                self._by_key.setdefault(names.key(new), {})[id] = new
            same, composed = self._by_key.get(names.key(name), {}), _composed(name)
            exact = next((id for id, known in same.items() if known == composed), None)
            number = exact or (next(iter(same)) if len(same) == 1 else 0)
            row = connection.execute(_BY_NUMBER, {"id": number}).one_or_none()  # nobody has 0, and it takes as long
        return Account(*row) if row else None

    def _named(self, name: str) -> Account:
        account = self._known(name)
        if account is None:
            known = ", ".join(account.name for account in self.all()) or "nobody yet"
            raise OptionError(f"there is no {name!r} here; there are: {known}")
        return account

    def _write(self, account: Account, password: str, *, ends_sessions: bool = True) -> Account | None:
        """Replace the password that was read. Return None if another request has replaced it since.

        So only one of two forms with the same invitation counts, and rehashing never overwrites a new password.
        Sessions end in the same transaction: none outlives its password if the studio is killed in between.
        """
        same = and_(learners.c.id == account.id, learners.c.password == account.password)
        with self._database.writing() as connection:
            changed = connection.execute(update(learners).where(same).values(password=password)).rowcount
            if changed and ends_sessions:
                connection.execute(delete(sessions).where(sessions.c.learner == account.id))
        return Account(account.id, account.name, password) if changed else None


def _composed(typed: str) -> str:
    """Return the text as composed Unicode (NFC), however the keyboard composes accents."""
    return unicodedata.normalize("NFC", typed)
