"""A studio over the sample course, with a clock the test turns."""

import functools
import importlib.util
import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from clearhead.studio.app.application import create
from clearhead.studio.learner.database import FILE, Database
from clearhead.studio.web.context import Context
from clearhead.studio.web.settings import Settings
from studio import postgresql
from studio.sample import library

START = datetime(2026, 3, 4, 12, tzinfo=UTC)


ON_BOTH = ("sqlite", pytest.param("postgresql", marks=pytest.mark.slow))  # a server is started, which takes seconds


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgresql.Server]:
    with postgresql.server_or_skip() as running:
        yield running


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str | None:
    """Where attempts are kept: None is the SQLite file. A module runs its tests on both with
    `pytestmark = pytest.mark.parametrize("database", ON_BOTH, indirect=True)`."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return None
    running: postgresql.Server = request.getfixturevalue("postgresql_server")
    return running.database()


@pytest.fixture(autouse=True)
def close_databases(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a test has opened: from Python 3.13 on a forgotten connection warns, in whichever test runs then."""
    opened, original = [], Database.__init__

    def noted(self: Database, *args: object, **options: object) -> None:
        opened.append(self)
        original(self, *args, **options)

    monkeypatch.setattr(Database, "__init__", noted)
    yield
    for database in opened:
        if hasattr(database, "engine"):  # it opened
            database.close()


class Visitor:
    """A browser without JavaScript: follows links, fills forms."""

    def __init__(self, client: TestClient, context: Context) -> None:
        self.client, self.context = client, context

    def get(self, address: str, status: int = 200) -> str:
        answer = self.client.get(address)
        assert answer.status_code == status, answer.text
        return answer.text

    def post(self, address: str, status: int = 200, **fields: object) -> str:
        answer = self.client.post(address, data={"csrf": self.token(), **fields})
        assert answer.status_code == status, answer.text
        return answer.text

    def token(self) -> str:
        found = re.search(r'<meta name="csrf" content="([^"]+)"', self.client.get("/").text)
        assert found
        return found[1]

    def later(self, **ahead: float) -> None:
        moment = self.context.now() + timedelta(**ahead)
        self.context.now = lambda: moment

    def ticket(self, page: str) -> str:
        found = re.search(r'name="ticket" value="([^"]+)"', page)
        assert found, page
        return found[1]


@functools.cache
def empty_database() -> bytes:
    """A new database file. Its migrations take most of a studio's start, and learner/test_store.py tests them."""
    with tempfile.TemporaryDirectory() as folder:
        Database(Path(folder)).close()
        return (Path(folder) / FILE).read_bytes()


def visitor_of(data: Path, database: str | None = None) -> tuple[TestClient, Visitor]:
    if database is None and not data.exists():
        data.mkdir(mode=0o700)
        (data / FILE).write_bytes(empty_database())
    app = create(Settings(data=data, database=database), library())
    app.state.context.now = lambda: START
    client = TestClient(app, base_url="http://127.0.0.1")
    return client, Visitor(client, app.state.context)


@pytest.fixture
def visitor(tmp_path: Path, database: str | None) -> Iterator[Visitor]:
    client, visitor = visitor_of(tmp_path / "data", database)
    with client:
        yield visitor
