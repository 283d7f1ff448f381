"""Every attack is stopped: as the user who runs the tests, and, where that is root, as an ordinary user too."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clearhead import sandbox
from clearhead.sandbox.confinement import landlock
from clearhead.sandbox.processes import bubblewrap, watch
from sandbox.confinement.attacks import ATTACKS, HARMLESS, OWN_NAMESPACE, Target

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"no confinement here: {sandbox.explain()}")
NOBODY = 65534
needs_landlock = pytest.mark.skipif(landlock.abi() < landlock.OLDEST, reason="this kernel has no Landlock")
needs_bubblewrap = pytest.mark.skipif(not bubblewrap.works(), reason=f"no bubblewrap here: {bubblewrap.unusable()}")


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.close()


def results(request: pytest.FixtureRequest, target: Target, test: str, backend: str) -> dict[str, str]:
    """What came of each attack that is to be tested, four at a time: most of them wait for a limit."""
    names = [one.callspec.params["name"] for one in request.session.items if getattr(one, "originalname", "") == test]
    with ThreadPoolExecutor(4) as threads:
        return dict(zip(names, threads.map(lambda name: target.attack(name, backend), names), strict=True))


@pytest.fixture(scope="module")
def by_landlock(request: pytest.FixtureRequest, target: Target) -> dict[str, str]:
    return results(request, target, "test_stopped", "landlock")


@pytest.fixture(scope="module")
def by_bubblewrap(request: pytest.FixtureRequest, target: Target) -> dict[str, str]:
    return results(request, target, "test_stopped_by_bubblewrap", "bubblewrap")


def test_there_are_enough() -> None:
    assert len(ATTACKS) >= 280


@needs_landlock
@pytest.mark.parametrize("name", ATTACKS)
def test_stopped(by_landlock: dict[str, str], name: str) -> None:
    assert by_landlock[name] == ""


@pytest.mark.parametrize("name", HARMLESS)
def test_it_is_the_sandbox_that_stops_it(target: Target, name: str) -> None:
    assert "BREACH" in target.unconfined(name)


@pytest.mark.stress
@needs_bubblewrap
@pytest.mark.parametrize("name", [one for one in ATTACKS if one not in OWN_NAMESPACE])
def test_stopped_by_bubblewrap(by_bubblewrap: dict[str, str], name: str) -> None:
    assert by_bubblewrap[name] == ""


# One of each kind, so that every run of the tests tries both back ends.
FEW = (
    "find a file to write in /proc", "find a file to write in /dev", "be root", "hold a capability",
    "own a pipe as the host", "fill the disk below 1,100 folders", "delete and keep mapped", "take memory as shared",
    "take memory under a name that is no text", "read the packs' answers", "take the ids of all processes",
)  # fmt: skip


@pytest.mark.slow
@needs_bubblewrap
def test_one_of_each_kind_is_stopped_by_bubblewrap(target: Target) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = dict(zip(FEW, threads.map(lambda name: target.attack(name, "bubblewrap"), FEW), strict=True))
    assert found == dict.fromkeys(FEW, "")


WATCHED = (
    "fill the disk below 1,100 folders", "fill it where paths are too long", "fill it and forbid looking",
    "delete and keep open", "delete and keep mapped", "delete, map to read and close", "write by memory alone",
    "move folders about while it writes", "write files without names", "make 100,000 empty files",
)  # fmt: skip


@pytest.mark.parametrize("backend", [one.name for one in sandbox.available()])
def test_a_folder_that_is_only_watched_is_bounded_too(
    target: Target, backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the kernel gives no tmpfs, what may be written between two looks is beyond the limit."""
    monkeypatch.setattr(watch, "TMPFS", False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(target.names, "allowed", 256 << 20)
    names = WATCHED if backend == "landlock" else WATCHED[:1]
    assert {name: target.attack(name, backend) for name in names} == dict.fromkeys(names, "")
    assert not list(tmp_path.glob("clearhead-run-*"))


def _python_of(user: int) -> str | None:
    """A Python that this user may start: ours, or the system's."""
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        program = [python or "", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        with contextlib.suppress(OSError):
            if subprocess.run(program, user=user, group=user, extra_groups=[], cwd="/").returncode == 0:
                return python
    return None


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="the tests run as an ordinary user already")
@pytest.mark.parametrize("each", [4, pytest.param(1, marks=pytest.mark.stress)])
def test_all_stopped_as_an_ordinary_user(each: int) -> None:
    python = _python_of(NOBODY)
    if python is None:
        pytest.skip("an ordinary user cannot start this Python, and the system has none of 3.11 or later")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        source = Path(sandbox.__file__).parents[2]
        paths = f"{source}{os.pathsep}{Path(__file__).parents[2]}"
        environment = {"TMPDIR": folder, "HOME": folder, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
        program = [python, "-m", "sandbox.confinement.attacks", str(each)]
        done = subprocess.run(program, user=NOBODY, group=NOBODY, extra_groups=[], env=environment, cwd=folder,
                              capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.stdout, done.stderr
    assert json.loads(done.stdout) == {"tried": -(-len(ATTACKS) // each), "through": {}, "uid": NOBODY}
