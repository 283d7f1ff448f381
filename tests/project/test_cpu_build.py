"""README's commands for torch's CPU build, run by pip on an index of two small wheels."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
(COMMAND,) = re.findall(r"^(PIP_INDEX_URL=.+?pip install '(?:torch==\S+)') ", README, re.M)
VERSION = re.search(r"torch==([^']+)'", COMMAND)[1]


def index(folder: Path, version: str) -> str:
    """The address of a package index that holds this version of torch alone, as an empty wheel."""
    place = folder / version / "simple" / "torch"
    place.mkdir(parents=True)
    name = f"torch-{version}-py3-none-any.whl"
    info = f"torch-{version}.dist-info"
    with zipfile.ZipFile(place / name, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    (place / "index.html").write_text(f'<a href="{name}">{name}</a>')
    return (folder / version / "simple").as_uri()


def run(address: str) -> subprocess.CompletedProcess[str]:
    """Run README's command with this address for the CPU index; pip says what it would install."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    asked = {"PIP_CONFIG_FILE": os.devnull, "PIP_DRY_RUN": "1", "PIP_IGNORE_INSTALLED": "1", "PIP_NO_DEPS": "1"}
    command = COMMAND.replace("pip install", f"{shlex.quote(sys.executable)} -m pip install")
    return subprocess.run(
        ["sh", "-c", command], env={**clean, **asked, "TORCH_CPU_INDEX": address}, capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_command_takes_the_cpu_build_or_fails(tmp_path):
    taken = run(index(tmp_path, VERSION))
    assert f"Would install torch-{VERSION}" in taken.stdout, taken.stderr
    refused = run(index(tmp_path, VERSION.split("+")[0]))  # an index that has the CUDA build alone
    assert refused.returncode != 0
    assert f"No matching distribution found for torch=={VERSION}" in refused.stderr


def test_it_is_the_pinned_version_and_clearhead_keeps_it():
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]
    assert f"{pinned}+cpu" == VERSION
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (torch,) = (asked for asked in map(Requirement, project["dependencies"]) if asked.name == "torch")
    assert torch.specifier.contains(VERSION)
