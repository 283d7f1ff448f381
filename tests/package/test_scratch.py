"""Temporary folders: gone when the process ends, and swept by the next start where it was killed."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clearhead import sandbox, scratch

pytestmark = pytest.mark.skipif(scratch.flock is None, reason="folders are locked by flock, which is Unix's")
HOLD = "from clearhead import scratch\nprint(scratch.folder('run-'), flush=True)\ninput()"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the system that only this test uses."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def process(program: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with a folder, and the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        try:
            yield running, Path(running.stdout.readline().strip())
        finally:
            running.kill()


def ours(temporary: Path) -> list[str]:
    return sorted(one.name for one in temporary.iterdir() if one.name.startswith("clearhead"))


def test_a_process_that_ends_leaves_nothing(temporary: Path) -> None:
    with process(HOLD) as (running, place):
        assert place.is_dir()
        assert place.stat().st_mode & 0o777 == 0o700
        running.communicate("\n")
    assert ours(temporary) == []


def test_a_killed_process_leaves_a_folder_that_the_next_start_removes(temporary: Path) -> None:
    with process(HOLD) as (running, place):
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert place.is_dir()
    with process(HOLD) as (running, other):
        assert not place.exists()
        assert ours(temporary) == [other.parent.name]
        running.communicate("\n")


def test_a_living_process_keeps_its_folder(temporary: Path) -> None:
    with process(HOLD) as (_, place):
        assert scratch.sweep() == []
        assert place.is_dir()


def test_what_is_not_ours_stays(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    precious = tmp_path_factory.mktemp("precious")
    (precious / "work").write_text("x")
    left = temporary / f"{scratch.PREFIX}aaaaaaaa"
    left.mkdir(mode=0o700)
    (left / "link").symlink_to(precious)
    (temporary / f"{scratch.PREFIX}bbbbbbbb").symlink_to(precious)
    (temporary / f"{scratch.PREFIX}cccccccc").write_text("a file")
    (temporary / f"{scratch.PREFIX}dddddddd").mkdir(mode=0o755)  # open to others: nothing we make is
    (temporary / f"{scratch.PREFIX}dddddddd").chmod(0o755)
    for name in ("clearhead-notes", "clearhead-abcdefgh", f"{scratch.PREFIX}mine"):
        (temporary / name).mkdir(mode=0o700)
    before = set(temporary.iterdir())
    assert scratch.sweep() == [left]
    assert set(temporary.iterdir()) == before - {left}
    assert (precious / "work").read_text() == "x"


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a folder to somebody else")
def test_another_users_folder_stays(temporary: Path) -> None:
    theirs = temporary / f"{scratch.PREFIX}aaaaaaaa"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 65534, 65534)
    assert scratch.sweep() == []
    assert theirs.is_dir()


def test_a_folder_that_a_program_made_unreadable_is_removed() -> None:
    program = (
        "import os\n"
        "from clearhead import scratch\n"
        "if os.getuid() == 0: os.setuid(65534)  # root reads everything\n"
        "place = scratch.folder()\n"
        "inside = place / 'a' / 'b'\n"
        "inside.mkdir(parents=True)\n"
        "(inside / 'c').write_text('x')\n"
        "inside.chmod(0); inside.parent.chmod(0o500)\n"
        "scratch.remove(place)\n"
        "assert not place.exists()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_folder_swept_before_it_was_locked_is_made_again(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment between making a folder and locking it: another start removes it there."""
    make, made = tempfile.mkdtemp, []

    def raced(*args: str | None, **options: str | None) -> str:
        place = make(*args, **options)
        made.append(place)
        if len(made) == 1:
            assert scratch.sweep() == [Path(place)]
        return place

    monkeypatch.setattr(tempfile, "mkdtemp", raced)
    place, descriptor = scratch._locked_folder()
    assert descriptor is not None
    assert [place] == [Path(one) for one in made[1:]]
    assert scratch.sweep() == []
    os.close(descriptor)


@pytest.mark.slow
def test_many_starts_at_once_take_nothing_from_each_other(temporary: Path) -> None:
    def start() -> None:
        for _ in range(40):
            place, descriptor = scratch._locked_folder()
            (place / "work").write_text("x")
            scratch.sweep()
            alive.append((place / "work").read_text() == "x")
            assert descriptor is not None
            os.close(descriptor)

    alive: list[bool] = []
    threads = [threading.Thread(target=start) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert alive == [True] * 320
    scratch.sweep()
    assert ours(temporary) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_takes_nothing_of_its_parents_away(temporary: Path) -> None:
    program = (
        "import os, sys\n"
        "from clearhead import scratch\n"
        "place = scratch.folder()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    assert scratch.folder().parent != place.parent\n"
        "    sys.exit()\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert place.is_dir()\n"
        "print(len(os.listdir(scratch.tempfile.gettempdir())))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "1\n"
    assert ours(temporary) == []


@pytest.mark.slow
@pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be run here: {sandbox.explain()}")
def test_a_killed_sandbox_leaves_nothing_after_the_next_start(temporary: Path) -> None:
    run = "from clearhead import sandbox\nsandbox.run('print(1)')\nprint('.', flush=True)\n"
    with process(run + "input()") as (running, _):
        assert len(ours(temporary)) == 1
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert len(ours(temporary)) == 1
    subprocess.run([sys.executable, "-c", run], check=True, capture_output=True)
    assert ours(temporary) == []
