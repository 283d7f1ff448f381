"""The store keeps every attempt once, through restarts, kills, two writers and damage."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearhead.course import Attempt
from clearhead.errors import StoreError
from clearhead.studio.store import FILE, Store

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


def test_an_attempt_comes_back_whole(tmp_path: Path) -> None:
    kept = attempt(response=["a", "c"], seconds=3.5, seed=11, confidence=0.9, hints=2)
    store = Store(tmp_path)
    assert store.record(kept)
    store.close()
    assert Store(tmp_path).attempts() == [(1, kept)]


def test_a_form_sent_twice_counts_once(tmp_path: Path) -> None:
    one, two = Store(tmp_path), Store(tmp_path)  # two processes would each have their own
    first = attempt()
    assert one.record(first)
    assert not two.record(attempt(first.id, correct=False))
    assert [kept for _, kept in two.attempts()] == [first]


def test_an_attempt_is_undone_once_and_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = attempt()
    store.record(first)
    assert not store.undone(first.id)
    assert store.record(attempt(undoes=first.id))
    assert not store.record(attempt(undoes=first.id))
    assert store.undone(first.id)
    assert store.attempt(first.id) == first


def test_times_are_kept_in_utc(tmp_path: Path) -> None:
    store = Store(tmp_path)
    there = attempt(at=NOW.astimezone(timezone(timedelta(hours=9))))
    store.record(there)
    assert store.attempts()[0][1].at == NOW
    raw = sqlite3.connect(store.path).execute("select at from attempts").fetchone()[0]
    assert raw == "2026-03-04T12:30:07.123456+00:00"


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for id in ("a", "b", "c"):
        store.record(attempt(id))
    assert [(number, kept.id) for number, kept in store.attempts(after=2)] == [(3, "c")]


def test_settings_are_kept_and_found_by_prefix(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep("setting:theme", "dark")
    store.keep("setting:theme", "light")
    store.keep("setting_x", "other")
    assert store.kept("setting:theme") == "light"
    assert store.kept("setting:clock", "1") == "1"
    assert store.kept_under("setting:") == {"theme": "light"}


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=12))
def test_whatever_is_sent_the_first_of_each_id_is_kept(tmp_path_factory: pytest.TempPathFactory, sent: list) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    for id, correct in sent:
        store.record(attempt(id, correct=correct))
    first = dict(reversed(sent))
    assert {kept.id: kept.correct for _, kept in store.attempts()} == first
    store.close()


@pytest.mark.parametrize("damage", ["garbage", "header", "middle"])
def test_a_damaged_file_is_said_and_left_alone(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
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
        Store(tmp_path)
    assert file.read_bytes() == bytes(data)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="give yourself the right to write there"):
        Store(tmp_path / "file" / "data")


def test_a_database_of_a_newer_studio_is_refused_and_left_alone(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    connection.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(StoreError, match="newer"):
        Store(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


def test_a_migration_makes_a_backup_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clearhead.studio import migrate

    store = Store(tmp_path)
    store.record(attempt("a"))
    store.close()
    migrate._back_up(tmp_path / FILE, "0001")
    (backup,) = (tmp_path / migrate.BACKUPS).glob("*.db")
    assert sqlite3.connect(backup).execute("select id from attempts").fetchall() == [("a",)]


WRITER = """
import sys, uuid
from datetime import UTC, datetime
from pathlib import Path
from clearhead.course import Attempt
from clearhead.studio.store import Store
store = Store(Path(sys.argv[1]))
while True:
    one = Attempt(str(uuid.uuid4()), "scale", 1, datetime.now(UTC), "practice", True)
    store.record(one)
    print(one.id, flush=True)
"""


def test_kill_9_loses_nothing_that_was_said_to_be_kept(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [writer.stdout.readline().strip() for _ in range(20)]
    time.sleep(0.02)
    os.kill(writer.pid, signal.SIGKILL)
    said += writer.stdout.read().split()
    writer.wait()
    writer.stdout.close()
    kept = [one.id for _, one in Store(tmp_path).attempts()]
    assert len(kept) == len(set(kept))
    assert set(said) <= set(kept)
