"""Manage the learners of a shared studio from the command line, for `clearhead studio user …`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clearhead.extras import STUDIO, needs

with needs(*STUDIO):
    from clearhead.studio.accounts.accounts import INVITED, Accounts
    from clearhead.studio.learner.database import Database
    from clearhead.studio.learner.store import Store
    from clearhead.studio.web.context import secret_in
    from clearhead.studio.web.settings import Settings

DAYS = INVITED // (24 * 60 * 60)
ADDRESS = "address"  # key under which a shared studio keeps its own address, with no learner's number


@dataclass(frozen=True)
class Users:
    """The accounts of a studio, and the address at which learners reach it."""

    accounts: Accounts
    address: str

    def invitation(self, token: str) -> str:
        """Return the text to send to a person who was invited."""
        invited = self.accounts.invited(token)
        name = invited.name if invited else ""
        where = "" if self.address else ", with your studio's address before it, as in http://192.168.1.7:8765"
        return f"Send {name} this link{where}. It works once, within {DAYS} days:\n{self.address}/join/{token}"


@contextmanager
def open_users(data: Path | None, database: str | None, url: str | None = None) -> Iterator[Users]:
    """Open the accounts of the studio in this data folder.

    Args:
        url: the address at which learners reach it; None: where it was served last, if known.

    Raises:
        StoreError, OptionError.
    """
    settings = Settings(data=Settings().data if data is None else data, url=url)
    opened = Database(settings.data, database)
    try:
        address = (url or "").rstrip("/") or Store(opened).kept(ADDRESS)
        yield Users(Accounts(opened, secret_in(settings.data)), address)
    finally:
        opened.close()


def remember_address(store: Store, address: str) -> None:
    """Store the address of a shared studio, for the links of its invitations."""
    if store.kept(ADDRESS) != address:
        store.keep(ADDRESS, address)
