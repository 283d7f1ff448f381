"""The measured costs of a machine: what is kept, what of it is used, and how a plan follows it."""

import json
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clearhead import kernels
from clearhead.errors import OptionError
from clearhead.kernels import plan, tuning
from clearhead.kernels.measured import costs, figures
from clearhead.kernels.measured.figures import FORWARD, TRAINING, Cost

from .targets import needs_native

FAST, SLOW = Cost(1.0, 10.0), Cost(2.0, 100.0)
MEASURED = {(FORWARD, torch.float32): (SLOW, FAST), (TRAINING, torch.float32): (FAST, SLOW)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of the test's own, which may be read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(figures.VARIABLE, raising=False)
    plan.forget()
    yield tmp_path / "cache"
    monkeypatch.undo()
    plan.forget()


def test_what_is_saved_is_loaded(cache: Path) -> None:
    path = figures.save(MEASURED)
    assert path.is_relative_to(cache)
    assert figures.load().costs == MEASURED
    assert figures.load().reason is None
    data = json.loads(path.read_text())
    assert data["cpu"] == figures.machine()["cpu"]
    assert data["versions"]["torch"] == torch.__version__


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_only_its_owner_may_read_it(cache: Path) -> None:
    before = os.umask(0)
    try:
        path = figures.save(MEASURED)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_save_that_fails_leaves_what_was_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = figures.save(MEASURED)
    before = path.read_bytes()

    def stop(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "dump", stop)
    with pytest.raises(KeyboardInterrupt):
        figures.save({})
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_made_is_an_error(cache: Path) -> None:
    cache.write_text("not a folder")
    with pytest.raises(OptionError, match=r"costs\.json cannot be written"):
        figures.save(MEASURED)


def changed(name: str, value: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed("cpu", "Another CPU"),
        changed("features", ["abacus"]),
        changed("versions", {"clearhead": "0.0.1", "torch": "1.0"}),
        changed("format", 0),
    ],
    ids=["cpu", "features", "versions", "format"],
)
def test_figures_of_another_machine_are_ignored(
    change: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    change(figures.save(MEASURED))
    with caplog.at_level(logging.DEBUG, logger="clearhead.kernels"):
        found = figures.load()
    assert found.costs == {}
    assert not found.damaged
    assert "was measured with" in str(found.reason)
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"1e999", b'{"format": 1}', b"[" * 100_000, b" " * (figures.LARGEST + 1),
    ],
    ids=lambda content: repr(content[:12]),
)  # fmt: skip
def test_a_damaged_file_is_ignored_and_reported(content: bytes) -> None:
    figures.save(MEASURED).write_bytes(content)
    found = figures.load()
    assert found.costs == {}
    assert found.damaged
    assert "clearhead tune" in str(found.reason)


@pytest.mark.parametrize(
    "lines",
    [
        {"flying": {}, "forward": {"float8": {}}},
        {"forward": {"float32": {"native": {"call": 1, "work": 1}}}},
        {"forward": {"float32": {"native": {"call": -1, "work": 1}, "torch": {"call": 1, "work": 1}}}},
        {"forward": {"float32": {"native": {"call": 1, "work": float("nan")}, "torch": {"call": 1, "work": 1}}}},
        {"forward": {"float32": {"native": {"call": 1, "work": float("inf")}, "torch": {"call": 1, "work": 1}}}},
        {"forward": {"float32": {"native": {"call": "fast", "work": 1}, "torch": {"call": 1, "work": 1}}}},
        {"forward": [1]},
        7,
    ],
    ids=str,
)
def test_damaged_lines_are_ignored_and_reported(lines: Any) -> None:
    changed("costs", lines)(figures.save(MEASURED))
    assert figures.load().costs == {}
    assert figures.load().damaged


def test_a_folder_in_its_place_is_reported() -> None:
    figures.file().mkdir(parents=True)
    assert figures.load().damaged


def test_no_file_is_no_fault() -> None:
    assert figures.load().reason == "this machine was not measured: run `clearhead tune`"
    assert not figures.load().damaged


def test_the_variable_leaves_it_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    figures.save(MEASURED)
    monkeypatch.setenv(figures.VARIABLE, "0")
    plan.forget()
    assert figures.load().costs == {}


@needs_native
def test_a_plan_follows_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLEARHEAD_KERNEL_TARGET", raising=False)
    query = torch.zeros(1, 2, 37, 8)
    plan.forget()
    assert kernels.explain(query, query, query).kernel == "native"
    figures.save(MEASURED)
    plan.forget()
    planned = kernels.explain(query, query, query)
    assert (planned.path, planned.kernel) == ("torch function", "torch")
    assert "clearhead tune" in planned.reason
    learns = query.clone().requires_grad_()
    assert kernels.explain(learns, query, query).kernel == "native"
    assert kernels.explain(query[:, :, :1], query, query).kernel == "native"  # a task that was not measured
    assert kernels.explain(query, query, query, softcap=3.0).kernel == "native"  # torch's function has none
    with kernels.target(kernels.targets()[-1].name):
        assert kernels.explain(query, query, query).kernel == "native"


@pytest.mark.parametrize(
    ("ours", "torchs", "low", "high"),
    [
        (Cost(2, 66), Cost(10, 20), 9 / 44 * 1e6, torch.inf),
        (Cost(10, 20), Cost(2, 66), 0, 7.8 / 52.6 * 1e6),
        (Cost(1, 1), Cost(1, 1), torch.inf, torch.inf),
        (Cost(1, 1), Cost(0.95, 0.95), torch.inf, torch.inf),  # within MARGIN
        (Cost(5, 5), Cost(1, 1), 0, torch.inf),
        (Cost(2, 0), Cost(1, 0), 0, torch.inf),
    ],
    ids=str,
)
def test_where_torch_is_faster(ours: Cost, torchs: Cost, low: float, high: float) -> None:
    found = costs.where_torch_is_faster(ours, torchs, "")
    assert found[:2] == pytest.approx((low, high))
    for work in (0, 1e3, 1e5, 1e6, 1e9):
        assert found.holds(work) == (torchs.at(work) * costs.MARGIN < ours.at(work))


@pytest.mark.slow
@needs_native
def test_every_task_of_every_dtype_is_measured() -> None:
    seen: list[tuple[int, int]] = []
    measured = tuning.measure(0.01, lambda done, total: seen.append((done, total)))
    assert {task for task, _ in measured} == set(figures.TASKS)
    assert len(measured) == len(seen) == seen[0][1]
    for ours, torchs in measured.values():
        assert ours.at(1e6) > 0
        assert torchs.at(1e6) > 0
