"""Bring the database to the newest layout, with a copy of it made first."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from clearhead.errors import StoreError

BACKUPS = "backups"


def upgrade(engine: Engine, path: Path) -> None:
    """Run every migration the file has not had. Nothing is touched when it is up to date."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    head = scripts.get_current_head()
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current == head:
        return
    if current is not None:
        if current not in {script.revision for script in scripts.walk_revisions()}:
            raise StoreError(
                f"your work in {path} was kept by a newer Clearhead (layout {current}, this one knows {head}). Nothing "
                "in it was changed. Install the newer version, or use another folder: clearhead studio --data DIR"
            )
        _back_up(path, current)
    with engine.begin() as connection, EnvironmentContext(config, scripts) as environment:
        environment.configure(
            connection=connection,
            fn=lambda revision, _: scripts._upgrade_revs("head", revision),
            render_as_batch=True,
        )
        environment.run_migrations()


def _back_up(path: Path, revision: str) -> None:
    folder = path.parent / BACKUPS
    folder.mkdir(exist_ok=True)
    name = f"{path.stem}-{revision}-{datetime.now(UTC):%Y%m%dT%H%M%S}.db"
    source, copy = sqlite3.connect(path), sqlite3.connect(folder / name)
    try:
        source.backup(copy)
    finally:
        copy.close()
        source.close()
