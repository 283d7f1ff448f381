"""Every attack is stopped: as whoever runs the tests, and, where that is root, as an ordinary user too."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearhead import sandbox
from clearhead.sandbox import bubblewrap
from sandbox.attacks import ATTACKS, HARMLESS, OWN_NAMESPACE, Target

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"no confinement here: {sandbox.explain()}")
NOBODY = 65534


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.close()


def test_there_are_enough() -> None:
    assert len(ATTACKS) >= 40


@pytest.mark.parametrize("name", ATTACKS)
def test_stopped(target: Target, name: str) -> None:
    assert target.attack(name) == ""


@pytest.mark.parametrize("name", HARMLESS)
def test_it_is_the_sandbox_that_stops_it(target: Target, name: str) -> None:
    assert "BREACH" in target.unconfined(name)


@pytest.mark.stress
@pytest.mark.skipif(not bubblewrap.works(), reason="bubblewrap is not installed, or may make no namespaces here")
@pytest.mark.parametrize("name", [one for one in ATTACKS if one not in OWN_NAMESPACE])
def test_stopped_by_bubblewrap(target: Target, name: str) -> None:
    assert target.attack(name, "bubblewrap") == ""


def _python_of(user: int) -> str | None:
    """A Python that this user may start: ours, or the system's."""
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        program = [python or "", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        with contextlib.suppress(OSError):
            if subprocess.run(program, user=user, group=user, extra_groups=[], cwd="/").returncode == 0:
                return python
    return None


@pytest.mark.skipif(os.getuid() != 0, reason="the tests run as an ordinary user already")
def test_all_stopped_as_an_ordinary_user() -> None:
    python = _python_of(NOBODY)
    if python is None:
        pytest.skip("an ordinary user cannot start this Python, and the system has none of 3.11 or later")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        source = Path(sandbox.__file__).parents[2]
        environment = {"TMPDIR": folder, "HOME": folder, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
        program = [python, str(Path(__file__).with_name("attacks.py"))]
        done = subprocess.run(program, user=NOBODY, group=NOBODY, extra_groups=[], env=environment, cwd=folder,
                              capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.stdout, done.stderr
    assert json.loads(done.stdout) == {"tried": len(ATTACKS), "through": {}, "uid": NOBODY}
