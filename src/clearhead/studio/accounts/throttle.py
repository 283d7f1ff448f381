"""Rate limiting for log-in: an attempt is counted before its password is hashed, and delayed rather than locked out."""

import hashlib
import hmac
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from sqlalchemy import Connection, case, delete, func, select, update

from clearhead.studio.learner.database import Database
from clearhead.studio.learner.tables import waits

DAY: Final = 24 * 60 * 60


@dataclass(frozen=True)
class Limit:
    """How many failed attempts are free, and how the delay grows: each further one doubles it.

    Args:
        free: failures before the first delay.
        first: the first delay, in seconds.
        longest: the longest delay, in seconds. It bounds what a stranger who guesses can cost the owner of a name.
    """

    free: int
    first: float
    longest: float

    def until(self, failures: int, last: float) -> float:
        """Return when the next attempt is possible, in seconds since 1970."""
        if failures < self.free:
            return 0.0
        return last + min(self.first * 2.0 ** min(failures - self.free, 20), self.longest)


# A name is guessed at by few and typed wrong by one; an address may be a whole class behind one router.
# A browser that logged in to this account before has a limit of its own, so strangers cannot delay its owner.
LIMITS: Final = {"name": Limit(5, 2.0, 60.0), "browser": Limit(5, 2.0, 60.0), "address": Limit(500, 1.0, 60.0)}


@dataclass(frozen=True)
class Key:
    """The key by which attempts are counted: a kind of LIMITS, and the name, browser or address."""

    kind: str
    value: str

    @property
    def limit(self) -> Limit:
        return LIMITS[self.kind]


def address_key(host: str) -> Key:
    """Return the key by which attempts from this address are counted; for IPv6 its /64, which one customer has whole.

    >>> address_key("2001:db8::1") == address_key("2001:db8::ffff:2"), address_key("::ffff:192.0.2.1").value
    (True, '192.0.2.1')
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:  # a proxy may hide whom it forwards for
        return Key("address", "")
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return Key("address", str(ip_network((address, 64), strict=False)))
        address = address.ipv4_mapped
    return Key("address", str(address))


class Throttle:
    """Counts log-in attempts in the database: a restart gives no new ones, and several processes share one count.

    Keys are stored as keyed hashes, so a password typed into the name field is in no table.
    """

    MOST = 10_000  # number of keys; above it, those that delay nobody are deleted

    def __init__(self, database: Database, secret: str, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self.clock = clock
        self._secret = hashlib.sha256(f"waits {secret}".encode()).digest()

    def admit(self, *keys: Key, now: float | None = None) -> int:
        """Count one attempt under each key and return 0; or return the seconds to wait and count nothing.

        This is one transaction that begins with a write, so parallel attempts cannot exceed the free ones.
        """
        now = self.clock() if now is None else now
        stored = {self._stored(key): key for key in keys}
        new = self._database.insert(waits).values(
            [{"key": text, "failures": 0, "last": now} for text in sorted(stored)]
        )
        rows = select(waits).where(waits.c.key.in_(stored)).order_by(waits.c.key).with_for_update()
        count = update(waits).where(waits.c.key.in_(stored)).values(failures=waits.c.failures + 1, last=now)
        with self._database.writing() as connection:
            connection.execute(new.on_conflict_do_nothing())
            self._forget(connection, now)
            delays = [
                min(limit.until(row.failures, row.last) - now, limit.longest)  # the clock may have been set back
                for row in connection.execute(rows)
                for limit in (stored[row.key].limit,)
            ]
            wait = math.ceil(max(0.0, *delays))
            if not wait:
                connection.execute(count)
        return wait

    def passed(self, *keys: Key) -> None:
        """After a right password: clear the counts of the name and the browser, and uncount this attempt's address."""
        personal = [self._stored(key) for key in keys if key.kind != "address"]
        shared = [self._stored(key) for key in keys if key.kind == "address"]
        less = case((waits.c.failures > 0, waits.c.failures - 1), else_=0)
        with self._database.writing() as connection:
            connection.execute(delete(waits).where(waits.c.key.in_(personal)))
            connection.execute(update(waits).where(waits.c.key.in_(shared)).values(failures=less))

    def _forget(self, connection: Connection, now: float) -> None:
        connection.execute(delete(waits).where(waits.c.last < now - DAY))
        if connection.execute(select(func.count()).select_from(waits)).scalar_one() > self.MOST:
            free = min(limit.free for limit in LIMITS.values())
            connection.execute(delete(waits).where(waits.c.failures < free, waits.c.last < now))

    def _stored(self, key: Key) -> str:
        text = f"{key.kind} {key.value}"
        return hmac.new(self._secret, text.encode("utf-8", "replace"), "sha256").hexdigest()
