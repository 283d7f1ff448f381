"""What `clearhead studio user …` does: the learners of a shared studio, from the command line of its machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clearhead.studio.accounts import INVITED, Accounts
from clearhead.studio.database import Database
from clearhead.studio.desk import secret_in
from clearhead.studio.settings import Settings

DAYS = INVITED // (24 * 60 * 60)


@contextmanager
def accounts(data: Path | None, database: str | None) -> Iterator[Accounts]:
    """The accounts of the studio that keeps its work there. Raises StoreError, OptionError."""
    folder = Settings().data if data is None else data
    opened = Database(folder, database)
    try:
        yield Accounts(opened, secret_in(folder))
    finally:
        opened.close()


def invitation(name: str, token: str) -> str:
    """What to send to somebody who was invited."""
    return f"Send {name} this link, good for {DAYS} days and once, with your studio's address before it:\n/join/{token}"
