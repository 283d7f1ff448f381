"""`pytest tests/<room>` needs pytest, Hypothesis and what that room needs, and nothing of the rooms above it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from extra_libraries import libraries

TESTS = Path(__file__).parents[1]
THEIRS = {"jinja2", "zstandard", "h11"}  # of torch, of Transformers and of the Hugging Face hub's client
OF_THE_WHOLE = {"browser", "package", "project", "suite"}  # no room's tests: they need everything
BROWSER = {"playwright", "axe_playwright_python"}
# The extras whose libraries are refused to each room's tests. (Transformers needs Rich, so capture has `cli` too.)
WITHOUT = {
    "spec": ("cli", "course", "models", "views", "studio", "postgresql"),
    "local_models": ("cli", "course", "models", "views", "studio", "postgresql"),
    "masks": ("cli", "course", "models", "views", "studio", "postgresql"),
    "kernels": ("cli", "course", "models", "views", "studio", "postgresql"),
    "matrix": ("cli", "course", "models", "views", "studio", "postgresql"),
    "multihead": ("cli", "course", "models", "views", "studio", "postgresql"),
    "distributed": ("cli", "course", "models", "views", "studio", "postgresql"),
    "capture": ("course", "studio", "postgresql"),
    "sandbox": ("cli", "course", "models", "views", "studio", "postgresql"),
    "course": ("models", "views", "studio", "postgresql"),
    "packs": ("models", "views", "studio", "postgresql"),
    "views": ("course", "studio", "postgresql"),
    "survey": ("course", "studio", "postgresql", "survey"),
    "cli": ("studio", "postgresql"),
    "studio": ("postgresql",),
    "benchmarks": ("course", "models", "views", "studio", "postgresql"),
    "js": ("cli", "course", "models", "views", "studio", "postgresql"),
}
WITHOUT_TORCH = {"course"}  # torch is no extra, and the tests of these rooms do without it too
# Plugins of others, which pytest would load by itself, bring the very libraries that are refused.
PROGRAM = """
import sys
from importlib.abc import MetaPathFinder

class Refusing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {refused!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refusing())
import pytest
raise SystemExit(pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", {folder!r}]))
"""


def test_every_room_is_listed() -> None:
    folders = {folder.name for folder in TESTS.iterdir() if any(folder.rglob("test_*.py"))}
    assert folders - OF_THE_WHOLE == set(WITHOUT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "room", [room if room in ("spec", "course") else pytest.param(room, marks=pytest.mark.stress) for room in WITHOUT]
)
def test_a_room_is_collected_without_the_libraries_of_the_others(room: str) -> None:
    refused = set().union(*map(libraries, WITHOUT[room]), BROWSER) - THEIRS
    if room in WITHOUT_TORCH:
        refused |= {"torch"}
    program = PROGRAM.format(refused=refused, folder=str(TESTS / room))
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=TESTS.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
