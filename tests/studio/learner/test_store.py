"""The store keeps every attempt once, through restarts, kills, writers at once, a full disk, new layouts and damage."""

import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clearhead.course import Attempt
from clearhead.errors import OptionError, StoreError
from clearhead.studio.learner import database as databases
from clearhead.studio.learner import migrate
from clearhead.studio.learner.database import FILE, Database
from clearhead.studio.learner.store import Store
from studio.conftest import ON_BOTH

NOW = datetime(2026, 3, 4, 12, 30, 7, 123456, tzinfo=UTC)


def attempt(id: str | None = None, **changes: object) -> Attempt:
    fields = {
        "id": id or str(uuid.uuid4()),
        "item_id": "scale",
        "item_rev": 2,
        "at": NOW,
        "mode": "practice",
        "correct": True,
    }
    return Attempt(**{**fields, **changes})  # type: ignore[arg-type]


LEARNERS = itertools.count(1)
Open = Callable[..., Store]
on_both = pytest.mark.parametrize("database", ON_BOTH, indirect=True)


@pytest.fixture
def opened(tmp_path: Path, database: str | None) -> Iterator[Open]:
    """Open the store, again and again: each time as another program would."""
    stores: list[Store] = []

    def one(learner: int = 0) -> Store:
        stores.append(Store(Database(tmp_path, database), learner))
        return stores[-1]

    yield one
    for store in stores:
        store.close()


def in_file(folder: Path) -> Store:
    return Store(Database(folder))


@on_both
def test_an_attempt_comes_back_whole(opened: Open) -> None:
    kept = attempt(response=["a", "c", "\0 ⟦é⟧ \ud800"], seconds=3.5, seed=11, confidence=0.9, hints=2)
    store = opened()
    assert store.record(kept)
    store.close()
    assert opened().attempts() == [(1, kept)]


@on_both
def test_a_form_sent_twice_counts_once(opened: Open) -> None:
    one, two = opened(), opened()  # two programs would each have their own
    first = attempt()
    assert one.record(first)
    assert not two.record(attempt(first.id, correct=False))
    assert [kept for _, kept in two.attempts()] == [first]


@on_both
def test_an_attempt_is_undone_once_and_stays(opened: Open) -> None:
    store = opened()
    first = attempt()
    store.record(first)
    assert not store.undone(first.id)
    assert store.record(attempt(undoes=first.id))
    assert not store.record(attempt(undoes=first.id))
    assert store.undone(first.id)
    assert store.attempt(first.id) == first


@on_both
def test_times_are_kept_in_utc(opened: Open) -> None:
    store = opened()
    there = attempt(at=NOW.astimezone(timezone(timedelta(hours=9))))
    store.record(there)
    assert store.attempts()[0][1].at == NOW
    with store.database.autocommit() as connection:
        assert connection.execute(sa.text("select at from attempts")).scalar_one() == "2026-03-04T12:30:07.123456+00:00"


@on_both
def test_only_what_is_new_is_read(opened: Open) -> None:
    store = opened()
    for id in ("a", "b", "c"):
        store.record(attempt(id))
    assert [(number, kept.id) for number, kept in store.attempts(after=2)] == [(3, "c")]


@on_both
def test_settings_are_kept_and_found_by_prefix(opened: Open) -> None:
    store = opened()
    store.keep("setting:theme", "dark")
    store.keep("setting:theme", "light")
    store.keep("setting_x", "other")
    store.keep("note:a", "half a \ud800 pair and a \0")
    assert store.kept("setting:theme") == "light"
    assert store.kept("setting:clock", "1") == "1"
    assert store.kept_under("setting:") == {"theme": "light"}
    assert store.kept("note:a") == "half a ? pair and a "
    assert store.attempt("no such \0 id \udfff") is None


@on_both
def test_each_learner_sees_only_his_own(opened: Open) -> None:
    ada, bob = opened(1), opened(2)
    shared = attempt()  # two may open the same address of a test
    assert ada.record(shared)
    assert bob.record(attempt(shared.id, correct=False))
    ada.keep("setting:theme", "dark")
    assert [one.correct for _, one in ada.attempts()] == [True]
    assert [one.correct for _, one in bob.attempts()] == [False]
    assert bob.attempt(shared.id) != shared
    assert bob.kept("setting:theme", "none") == "none"
    assert not bob.kept_under("setting:")
    assert opened(3).attempt(shared.id) is None


@pytest.mark.slow
@on_both
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=12))
def test_whatever_is_sent_the_first_of_each_id_is_kept(opened: Open, sent: list[tuple[str, bool]]) -> None:
    store = opened(learner=next(LEARNERS))  # somebody new each time
    for id, correct in sent:
        store.record(attempt(id, correct=correct))
    assert {kept.id: kept.correct for _, kept in store.attempts()} == dict(reversed(sent))


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["garbage", "header", "middle"])
def test_a_damaged_file_is_reported_and_left_alone(tmp_path: Path, damage: str) -> None:
    store = in_file(tmp_path)
    for _ in range(300):
        store.record(attempt())
    store.close()
    file = tmp_path / FILE
    data = bytearray(file.read_bytes())
    if damage == "garbage":
        data = bytearray(b"not a database at all " * 200)
    elif damage == "header":
        data[0:16] = b"\0" * 16
    else:
        data[4096 * 2 : 4096 * 4] = os.urandom(4096 * 2)
    file.write_bytes(data)
    with pytest.raises(StoreError, match=r"Nothing in it was changed.*--data DIR"):
        in_file(tmp_path)
    assert file.read_bytes() == bytes(data)


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="give yourself the right to write there"):
        in_file(tmp_path / "file" / "data")


def test_a_database_of_a_newer_studio_is_refused_and_left_alone(tmp_path: Path) -> None:
    in_file(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    connection.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(StoreError, match="newer"):
        in_file(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize("url", ["mysql://a@b/c", "nonsense", "", "postgresql://a@b:port/c"])
def test_a_url_of_another_kind_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(OptionError, match="postgresql://USER@HOST/NAME"):
        Database(tmp_path, url)


def test_a_server_that_is_not_there_is_reported_without_the_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'clearhead[postgresql]'")
    with pytest.raises(StoreError, match="see that the server runs") as refused:
        Database(tmp_path, f"postgresql://ada:secret@/none?host={tmp_path}")
    assert "secret" not in str(refused.value).split("cannot be used")[0]


def as_it_was(folder: Path, url: str | None, rows: int) -> None:
    """A database of the first layout, with attempts in it."""
    engine = databases._of_file(folder / FILE) if url is None else databases._of_server(databases.postgresql_url(url))
    script = ScriptDirectory(str(Path(migrate.__file__).with_name("migrations"))).get_revision("0001")
    with engine.begin() as connection:
        with Operations.context(MigrationContext.configure(connection)):
            script.module.upgrade()
        connection.execute(sa.text("create table alembic_version (version_num varchar(32) primary key)"))
        connection.execute(sa.text("insert into alembic_version values ('0001')"))
        connection.execute(sa.text("insert into kept values ('start-after', '3')"))
        for number in range(rows):
            row = "insert into attempts (id, item_id, item_rev, at, mode, correct, response, seed, hints) values "
            values = f"('old-{number}', 'scale', 1, '2026-03-04T12:00:00+00:00', 'practice', true, '[\"a\"]', 7, 0)"
            connection.exec_driver_sql(row + values)
    engine.dispose()


@on_both
def test_an_older_layout_is_copied_and_brought_up_to_date(tmp_path: Path, database: str | None, opened: Open) -> None:
    as_it_was(tmp_path, database, 5)
    store = opened()
    assert [(number, one.id) for number, one in store.attempts()] == [(i + 1, f"old-{i}") for i in range(5)]
    assert store.attempts()[0][1].response == ["a"]
    assert store.kept("start-after") == "3"
    assert store.record(attempt("new"))
    assert store.attempts()[-1][0] == 6
    (backup,) = (tmp_path / migrate.BACKUPS).iterdir()
    if database is None:
        with sqlite3.connect(backup) as copy:
            assert copy.execute("select count(*) from attempts").fetchone() == (5,)
        copy.close()
    else:
        rows = [json.loads(line) for line in backup.read_text().splitlines()]
        assert [row["id"] for table, row in rows if table == "attempts"] == [f"old-{i}" for i in range(5)]
    opened()
    assert len(list((tmp_path / migrate.BACKUPS).iterdir())) == 1, "up to date: nothing to copy"


def test_a_backup_that_does_not_fit_is_not_kept_by_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_it_was(tmp_path, None, 5)

    def full(_source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(migrate, "copy_file", full)
        with pytest.raises(StoreError, match="full"):
            Database(tmp_path)
    assert list((tmp_path / migrate.BACKUPS).iterdir()) == []
    assert len(Store(Database(tmp_path)).attempts()) == 5


def program(text: str, folder: Path, url: str | None, *more: object) -> subprocess.Popen[str]:
    """A studio of its own process, which says the id of each attempt when it is kept."""
    source = PROGRAM + text
    return subprocess.Popen(
        [sys.executable, "-c", source, str(folder), url or "", *map(str, more)], stdout=subprocess.PIPE, text=True
    )


PROGRAM = """
import os, resource, signal, sys, uuid
from datetime import UTC, datetime
from pathlib import Path
from clearhead.course import Attempt
from clearhead.errors import StoreError
from clearhead.studio.learner.database import Database
from clearhead.studio.learner.store import Store
def opened():
    return Store(Database(Path(sys.argv[1]), sys.argv[2] or None))
def keep(store, id=None, response=None):
    one = Attempt(id or str(uuid.uuid4()), "scale", 1, datetime.now(UTC), "practice", True, response)
    if store.record(one):
        print(one.id, flush=True)
"""


def finish(running: subprocess.Popen[str]) -> list[str]:
    said, _ = running.communicate(timeout=60)
    return said.split()


@pytest.mark.slow
@on_both
def test_kill_9_loses_nothing_that_was_said_to_be_kept(tmp_path: Path, database: str | None, opened: Open) -> None:
    writer = program("store = opened()\nwhile True: keep(store)", tmp_path, database)
    assert writer.stdout is not None
    said = [writer.stdout.readline().strip() for _ in range(20)]
    time.sleep(0.02)
    os.kill(writer.pid, signal.SIGKILL)
    said += finish(writer)
    kept = [one.id for _, one in opened().attempts()]
    assert len(kept) == len(set(kept))
    assert set(said) <= set(kept)
    assert len(kept) <= len(said) + 1  # one may have been kept and not yet said


@pytest.mark.slow
@on_both
def test_kill_9_in_the_middle_of_a_new_layout_loses_nothing(tmp_path: Path, database: str | None, opened: Open) -> None:
    as_it_was(tmp_path, database, 5)
    for step in ("create_index", "drop_table"):
        dies = f"from alembic import op\nop.{step} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\nopened()"
        dying = program(dies, tmp_path, database)
        finish(dying)
        assert dying.returncode == -signal.SIGKILL
    store = opened()
    assert [one.id for _, one in store.attempts()] == [f"old-{i}" for i in range(5)]
    assert store.record(attempt())


@pytest.mark.slow
@on_both
def test_two_studios_at_once_keep_everything_once(tmp_path: Path, database: str | None, opened: Open) -> None:
    """Both start on an empty folder, write their own attempts, and fight over the same forms."""
    text = "store = opened()\nfor i in range(30):\n    keep(store)\n    keep(store, f'form-{i}')"
    both = [program(text, tmp_path, database) for _ in range(2)]
    seen: dict[int, str] = {}
    store = opened()
    while any(one.poll() is None for one in both):  # a third reads along, only what is new each time
        seen |= {number: one.id for number, one in store.attempts(after=max(seen, default=0))}
    seen |= {number: one.id for number, one in store.attempts(after=max(seen, default=0))}
    said = [id for one in both for id in finish(one)]
    assert [one.returncode for one in both] == [0, 0]
    assert len(said) == len(set(said)) == 90
    assert sorted(seen.values()) == sorted(said)


@pytest.mark.slow
def test_a_full_disk_is_reported_and_loses_nothing(tmp_path: Path, opened: Open) -> None:
    full = """
store = opened()
keep(store)
size = sum(file.stat().st_size for file in Path(sys.argv[1]).iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300_000, resource.RLIM_INFINITY))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    while True: keep(store, response="x" * 5000)
except StoreError as problem:
    assert "make room" in str(problem), problem
try:
    opened()
except StoreError as problem:
    assert "make room" in str(problem), problem
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
keep(store, "after")
"""
    running = program(full, tmp_path, None)
    said = finish(running)
    assert running.returncode == 0
    assert len(said) > 5
    assert said[-1] == "after"
    assert [one.id for _, one in opened().attempts()] == said
