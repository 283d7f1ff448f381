"""`clearhead tune`: measures, keeps the figures, and `doctor` reports them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from clearhead import kernels
from clearhead.cli.app import app
from clearhead.cli.tune import tune
from clearhead.errors import OptionError
from clearhead.kernels import plan, tuning
from clearhead.kernels.measured import figures, tasks
from clearhead.kernels.native.cpu_targets import VARIABLE

needs_native = pytest.mark.skipif(not kernels.targets(), reason="the native library was not built on this machine")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(figures.VARIABLE, raising=False)
    plan.forget()
    yield tmp_path
    monkeypatch.undo()
    plan.forget()


def measured(dtype: torch.dtype) -> tasks.Costs:
    return {(task, dtype): (tasks.Cost(3.0, 0.5, 50.0), tasks.Cost(4.0, 0.5, 60.0)) for task in tasks.TASKS}


@needs_native
def test_it_measures_and_keeps(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(tuning, "measure", lambda seconds, tell: asked.append(seconds) or measured(torch.float32))
    done = CliRunner().invoke(app, ["tune", "--seconds", "7", "--json"])
    assert done.exit_code == 0, done.stderr
    assert asked == [7]
    data = json.loads(done.stdout)
    assert Path(data["path"]).is_relative_to(cache)
    assert set(data["costs"]) == set(tasks.TASKS)
    kept = json.loads(Path(data.pop("path")).read_text())
    assert kept["costs"] == data["costs"]
    assert set(kept) == set(data)
    told = CliRunner().invoke(app, ["doctor", "--json"])
    assert json.loads(told.stdout)["Kernels"]["measured costs"]["found"].startswith(str(cache))


@needs_native
def test_it_reports_what_the_time_did_not_reach(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = measured(torch.float32)
    monkeypatch.setattr(tuning, "measure", lambda *_: costs)
    monkeypatch.setattr(tuning, "todo", lambda: [*costs, ("linear", torch.float64), ("linear", torch.float16)])
    done = CliRunner().invoke(app, ["tune", "--seconds", "5"])
    assert done.exit_code == 0, done.stderr
    assert "2 tasks were not measured: 5 s were over" in done.stderr
    assert "wrote" in done.stderr
    monkeypatch.setattr(tuning, "todo", lambda: [*costs])
    assert "not measured" not in CliRunner().invoke(app, ["tune"]).stderr


@needs_native
def test_a_file_that_cannot_be_written_is_reported_before_measuring(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: object) -> None:
        raise AssertionError("it measured first")

    monkeypatch.setattr(tuning, "measure", measure)
    (cache / "file").touch()
    figures.file().mkdir(parents=True)
    for folder, why in ((cache, "Is a directory"), (cache / "file", "Not a directory")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        done = CliRunner().invoke(app, ["tune"])
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"costs.json cannot be written: {why}. Set XDG_CACHE_HOME" in done.stderr
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "new"))
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write everywhere
    with pytest.raises(OptionError, match=r"Permission denied. Set XDG_CACHE_HOME"):
        figures.refuse_unwritable()
    assert not (cache / "new").exists()


def test_the_longest_budget_is_under_two_minutes() -> None:
    assert CliRunner().invoke(app, ["tune", "--seconds", "100.1"]).exit_code == 2


def test_doctor_plans_typical_calls_and_reports_a_damaged_file(cache: Path) -> None:
    figures.file().parent.mkdir(parents=True)
    figures.file().write_text("{")
    report = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert report["Kernels"]["measured costs"]["works"] is False
    assert "damaged" in report["Kernels"]["measured costs"]["found"]
    assert len(report["Plans"]) >= 4
    assert all("kernel" in row["found"] for row in report["Plans"].values())


@needs_native
def test_doctor_reports_a_target_that_cannot_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "abacus")
    plan.forget()
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    rows = [report["Kernels"]["native"], report["Kernels"]["measured costs"], *report["Plans"].values()]
    for row in rows:
        assert row["works"] is False
        assert f"no kernel target 'abacus', forced by {VARIABLE}" in row["found"]


SCRIPT = """
import signal
from clearhead.kernels import tuning
own = tuning._best

def best(*args):
    print("measuring", flush=True)
    return own(*args)

tuning._best = best
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from clearhead.__main__ import main
main()
"""


@needs_native
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_stops_it_and_keeps_nothing(cache: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, "tune", "--seconds", "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "measuring\n"
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not list(cache.rglob("*"))


def test_its_options_are_checked() -> None:
    for wrong in ("0", "101", "nan", "fast"):
        assert CliRunner().invoke(app, ["tune", "--seconds", wrong]).exit_code == 2
    with pytest.raises(OptionError, match="--seconds is nan"):  # which Typer 0.19 passes on
        tune(float("nan"))
