"""Migrate a database to the newest layout: first a backup, then every step in one transaction.

If the process is killed at any moment, the database has either the old or the new layout. The backup of an SQLite file
is a file. The backup of a PostgreSQL database is a line of JSON per row, which needs no tool of the server's version.
"""

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, func, select

from clearhead.errors import StoreError
from clearhead.files import discard

BACKUPS = "backups"
ONE_AT_A_TIME = 0x636C6561  # the advisory lock of PostgreSQL that a migration holds


def upgrade(engine: Engine, where: str, folder: Path) -> None:
    """Run every migration that the database lacks. An up-to-date database is not touched.

    Args:
        where: the database's name in messages.
        folder: the backup goes into its subfolder `backups`.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    with engine.connect() as connection:
        if _revision(connection, scripts, where) == scripts.get_current_head():
            return
    with engine.execution_options(begin="BEGIN IMMEDIATE").begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(ONE_AT_A_TIME)))
        current = _revision(connection, scripts, where)  # another studio may have migrated it first
        if current == scripts.get_current_head():
            return
        if current is not None:
            _back_up(connection, folder, current)
        with EnvironmentContext(config, scripts) as environment:
            environment.configure(connection=connection, fn=lambda revision, _: scripts._upgrade_revs("head", revision))
            environment.run_migrations()


def _revision(connection: Connection, scripts: ScriptDirectory, where: str) -> str | None:
    """Return the layout of the database; None for a new one."""
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise StoreError(
            f"your work in {where} was kept by a newer Clearhead (layout {current}, this one knows "
            f"{scripts.get_current_head()}). Nothing in it was changed. Install the newer version, or use another "
            "folder: clearhead studio --data DIR"
        )
    return current


def _back_up(connection: Connection, folder: Path, revision: str) -> Path:
    """Write a backup, which gets its name only when it is complete."""
    target = folder / BACKUPS / f"clearhead-{revision}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    target.parent.mkdir(mode=0o700, exist_ok=True)
    part = target.with_suffix(".part")
    try:
        part.touch(mode=0o600)
        part.chmod(0o600)
        if connection.dialect.name == "postgresql":
            copy_rows(connection, part)
            return part.rename(target.with_suffix(".jsonl"))
        copy_file(Path(str(connection.engine.url.database)), part)
        return part.rename(target.with_suffix(".db"))
    finally:  # a full disk keeps no half of a backup
        discard(part)


def copy_file(source: Path, target: Path) -> None:
    """Copy a whole SQLite file, its log included."""
    here, there = sqlite3.connect(source), sqlite3.connect(target)
    try:
        here.backup(there)
    finally:
        there.close()
        here.close()


def copy_rows(connection: Connection, target: Path) -> None:
    """Write every row of every table as a line of JSON: the table's name and the row."""
    tables = MetaData()
    tables.reflect(connection)
    with target.open("w", encoding="utf-8") as out:
        for table in tables.sorted_tables:
            for row in connection.execute(select(table)):
                out.write(json.dumps([table.name, dict(row._mapping)]) + "\n")
