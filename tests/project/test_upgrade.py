"""What earlier versions wrote opens in this one: tests/fixtures has a folder a version, written by that version's code.

- studio/clearhead.db: five attempts and a setting.
- matrices.safetensors: saved matrices; weights.safetensors: their weights, as that version computed them.
- generation.safetensors: a record of one generation, from 0.2.0 on; its joined weights beside it.
"""

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parents[1] / "fixtures"
VERSIONS = sorted(path.name for path in FIXTURES.iterdir())
AT = datetime(2026, 3, 4, 12, 30, 7, 123456, tzinfo=UTC)


def test_there_is_a_folder_of_each_version():
    changelog = (FIXTURES.parents[1] / "CHANGELOG.md").read_text()
    assert set(VERSIONS) >= {
        "0.1.0",
        *(line.split("]")[0][4:] for line in changelog.splitlines() if line[:4] == "## ["),
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_a_studio_s_database_opens_with_all_its_attempts(version, tmp_path):
    pytest.importorskip("alembic", reason="clearhead[studio] is not installed")
    from clearhead.studio.learner.database import FILE, Database
    from clearhead.studio.learner.store import Store

    shutil.copytree(FIXTURES / version / "studio", tmp_path, dirs_exist_ok=True)
    old = revision(tmp_path / FILE)
    store = Store(Database(tmp_path))
    attempts = [attempt for _, attempt in store.attempts()]
    setting = store.kept("theme")
    store.close()
    assert [attempt.at for attempt in attempts] == [AT + timedelta(days=day) for day in range(5)]
    assert [attempt.correct for attempt in attempts] == [True, False, True, False, True]
    assert [attempt.item_id for attempt in attempts] == ["item-0", "item-1", "item-0", "item-1", "item-0"]
    assert [attempt.response for attempt in attempts] == ["typed", *[["a", "é ⟦"]] * 4]
    assert [attempt.seed for attempt in attempts] == [0, 1, 2, 3, 4]
    assert setting == "dark"
    assert version != "0.1.0" or old != revision(tmp_path / FILE)  # a migration took place


def revision(database: Path) -> str:
    with closing(sqlite3.connect(database)) as connection:  # from Python 3.13 on, an open one is an error here
        (found,) = connection.execute("select version_num from alembic_version").fetchone()
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_saved_matrices_have_the_weights_they_had(version):
    store = pytest.importorskip("safetensors.torch", reason="clearhead[models] is not installed")
    import torch

    import clearhead

    folder = FIXTURES / version
    loaded = clearhead.matrix.load(folder / "matrices.safetensors")
    weights = store.load_file(folder / "weights.safetensors")
    assert set(loaded) == set(weights) >= {"causal", "masked"}
    for name, matrix in loaded.items():
        torch.testing.assert_close(matrix.to_dense(), weights[name], rtol=1e-5, atol=1e-6)
    assert loaded["masked"].v.shape == (1, 2, 7, 3)


@pytest.mark.parametrize("version", [version for version in VERSIONS if version != "0.1.0"])
def test_a_saved_record_has_its_calls_and_positions(version):
    store = pytest.importorskip("safetensors.torch", reason="clearhead[models] is not installed")
    import torch

    import clearhead

    folder = FIXTURES / version
    record = clearhead.Record.of(clearhead.matrix.load(folder / "generation.safetensors"))
    weights = store.load_file(folder / "generation-weights.safetensors")
    joined = record.joined()
    assert set(joined) == set(weights)
    for name, matrix in joined.items():
        torch.testing.assert_close(matrix.to_dense(), weights[name], rtol=1e-5, atol=1e-6)
        assert len(record.calls(name)) == 4
        assert record.positions(name)[-1].queries.positions == range(5, 6)
