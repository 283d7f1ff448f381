"""A file of tests that cannot be imported fails the run, with doctests and without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("options", [[], ["--doctest-modules", "--doctest-ignore-import-errors"]], ids=str)
@pytest.mark.parametrize(
    ("first", "code"),
    [("import no_such_module_anywhere", 2), ("import pytest; pytest.importorskip('no_such_module_anywhere')", 0)],
)
def test_a_file_that_cannot_be_imported_is_an_error(tmp_path: Path, first: str, code: int, options: list[str]) -> None:
    (tmp_path / "test_broken.py").write_text(f"{first}\ndef test_lost(): pass\n")
    (tmp_path / "test_fine.py").write_text("def test_found(): pass\n")
    command = [sys.executable, "-m", "pytest", "-p", "tiers", "-p", "no:cacheprovider", "--import-mode=importlib"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    ran = subprocess.run(
        [*command, *options, "-c", os.devnull, "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == code, ran.stdout
