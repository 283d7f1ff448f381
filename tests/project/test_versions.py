"""Dependencies are pinned, and the version is the same everywhere."""

import os
import re
import shutil
import tomllib
from importlib import metadata
from itertools import chain

import pytest

import clearhead
import scripts
from fresh import answer
from project.checkout import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned():
    pinned = {
        normalised(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    wanted = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    names = {normalised(re.match(r"[A-Za-z0-9._-]+", requirement)[0]) for requirement in wanted}
    assert names - pinned == {"clearhead"}  # an extra that includes others


@pytest.mark.skipif(os.environ.get("PINNED") == "", reason="the newest versions were asked for: make PINNED=")
def test_torch_here_is_the_pinned_one():
    pin = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pin is not None
    assert metadata.version("torch").split("+")[0] == pin[1] == "2.13.0"


def test_the_lowest_constraints_are_up_to_date():
    lowest = scripts.load("tools/lowest.py")
    assert lowest.FILE.read_text() == lowest.lowest((ROOT / "pyproject.toml").read_text()), "run tools/lowest.py"


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-lowest.txt"])
def test_pip_takes_each_line_of_the_constraints(name):
    """It refuses extras: `psycopg[binary]==3.2.1` made `pip install --constraint` fail."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9.]*", line)] == []


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert clearhead.__version__ == project["version"]
    assert re.findall(r"^## \[(.+)\] - \d{4}-\d\d-\d\d$", changelog, re.M)[0] == project["version"]


def test_ci_runs_make_test_and_nothing_else():
    script = (ROOT / ".ci" / "run").read_text()
    assert "make test" in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert len([line for line in script.splitlines() if line and not line.startswith("#")]) <= 3


@pytest.mark.slow
def test_a_machine_with_a_compiler_has_the_native_library():
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip("no C++ compiler here, so no native library is expected")
    assert answer("import torch, clearhead._native; print('built')") == "built"
