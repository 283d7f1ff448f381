"""The studio on the lowest versions of its dependencies that pyproject.toml allows, in an environment of its own.

It takes about eight minutes on two busy cores, downloads included.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "build" / "lowest"
TESTS = ("accounts", "web/test_security.py", "learner/test_store.py", "learn/test_pages.py")

pytestmark = pytest.mark.stress


def test_the_studio_holds_on_the_lowest_versions() -> None:
    python = FOLDER / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
    # What is not pinned there, torch above all, comes from this environment, after its own packages.
    own = next(FOLDER.glob("lib/python*/site-packages"))
    here = sysconfig.get_path("purelib")
    (own / "zz-others.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    install = [python, "-m", "pip", "install", "--quiet", "--ignore-installed"]
    # httpx: the TestClient of older versions of starlette; psycopg[binary]: a constraint has no extras
    more = ["httpx", "psycopg[binary]"]
    done = subprocess.run([*install, *more, "-r", ROOT / "constraints-lowest.txt"], capture_output=True, text=True)
    # An index that has other versions of it was reached: the bound names one that does not exist.
    is_wrong = "(from versions: " in done.stderr and "(from versions: none)" not in done.stderr
    assert not is_wrong, done.stderr.strip()[-300:]
    if done.returncode:
        pytest.skip(f"the lowest versions cannot be fetched here: {done.stderr.strip()[-300:]}")
    # Plugins of the newer packages are registered too, and their code is not there.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    files = [str(ROOT / "tests" / "studio" / name) for name in TESTS]
    # An old TestClient uses names that newer anyio deprecates.
    lenient = ["-W", "ignore::DeprecationWarning"]
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *lenient, *files]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-4000:]
    # Typer reads the signatures of all commands for this: 0.15 knew no Literal.
    shown = subprocess.run([python, "-m", "clearhead", "see", "--help"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr[-2000:]
