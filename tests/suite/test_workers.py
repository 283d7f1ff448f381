"""Forked workers run each test once, report it, and outlive a test that kills its process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILE = """
import os, pathlib, pytest
FOLDER = pathlib.Path(__file__).parent

def note(name):
    with (FOLDER / "log").open("a") as log:
        log.write(f"{name}\\n")

note(f"OpenMP threads when collected: {os.environ['OMP_NUM_THREADS']}")

@pytest.fixture(scope="session")
def server():
    note(f"set up {os.getpid()}")
    yield
    note(f"torn down {os.getpid()}")

@pytest.mark.parametrize("number", range(150))
def test_many(number, server, tmp_path):
    note(f"ran {number}")
    (tmp_path / "file").touch(exist_ok=False)

def test_fails(): assert 2 + 2 == 5, "the sum is wrong"
def test_skipped(): pytest.skip("there is a reason")
def test_dies(): os._exit(3)
def test_after(): note("ran after")
"""


@pytest.fixture
def run(tmp_path: Path):
    (tmp_path / "conftest.py").write_text(
        "import workers\nfrom workers import pytest_configure, pytest_runtestloop\n"
        "pytest_addoption = workers.pytest_addoption\n"
    )
    (tmp_path / "test_it.py").write_text(FILE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "--workers", "2", *arguments]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "2",
            "PYTHONPATH": str(TESTS),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_each_test_runs_once_and_its_outcome_is_told(run, tmp_path: Path) -> None:
    done = run()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 failed, 151 passed, 1 skipped" in done.stdout
    assert "the sum is wrong" in done.stdout
    assert "the process that ran this test ended with status 3" in done.stdout
    assert ": there is a reason" in done.stdout
    log = (tmp_path / "log").read_text().splitlines()
    assert log[0] == "OpenMP threads when collected: 1"
    assert sorted(line for line in log if line.startswith("ran")) == sorted(
        [*(f"ran {number}" for number in range(150)), "ran after"]
    )
    up, down = ({line.split()[-1] for line in log if line.startswith(start)} for start in ("set up", "torn down"))
    assert len(up) >= 2
    assert down == up - (up - down)
    assert len(up - down) <= 1, "all but the process that was killed"


def test_the_first_failure_ends_it_where_asked(run, tmp_path: Path) -> None:
    done = run("-x", "--deselect", "test_it.py::test_dies")
    assert done.returncode == 1, done.stdout
    assert "stopping after 1 failures" in done.stdout


def test_it_collects_alone_where_that_is_asked(run, tmp_path: Path) -> None:
    done = run("--collect-only", "-q")
    assert "154 tests collected" in done.stdout
    assert "ran" not in (tmp_path / "log").read_text()
