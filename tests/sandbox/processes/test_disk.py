"""A program's folder: how large it may grow, who counts, and that nothing of it stays; the watcher outlives it all."""

import ctypes
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clearhead import sandbox, scratch
from clearhead.sandbox import Limits
from clearhead.sandbox.processes import disk, pool, watch

NAMES = [one.name for one in sandbox.available()]
MIB = 1 << 20
SHORT = Limits(seconds=4.0, memory=128 * MIB, disk=3 * MIB)


def deep(folder: Path, levels: int, name: str = "d") -> None:
    """Folders in folders, with a file in each hundredth. Made through descriptors: the path is longer than PATH_MAX."""
    at = os.open(folder, os.O_RDONLY)
    for level in range(levels):
        os.mkdir(name, dir_fd=at)
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        if level % 100 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=inner))
        os.close(at)
        at = inner
    os.close(at)


def forbidden(folder: Path) -> None:
    for mode in (0o000, 0o400, 0o100, 0o555):
        inner = folder / f"{mode:o}" / "inner"
        inner.mkdir(parents=True)
        (inner / "file").write_text("x")
        inner.chmod(mode)
        inner.parent.chmod(mode)


def linked(folder: Path, outside: Path) -> None:
    (folder / "a").write_bytes(b"x" * 5000)
    (folder / "hard").hardlink_to(folder / "a")
    (folder / "folder").symlink_to(outside)
    (folder / "nowhere").symlink_to("nowhere")
    (folder / "inner").mkdir()
    (folder / "inner" / "up").symlink_to("..")
    (folder / "inner" / "outside").symlink_to(outside)
    os.mkfifo(folder / "pipe")


BUILDS: dict[str, Callable[[Path], None]] = {
    "deeper than Python recurses": lambda folder: deep(folder, 331),
    "long paths": lambda folder: deep(folder, 61, "n" * 251),
    "forbidden folders": forbidden,
    "many files": lambda folder: [(folder / f"{n}").touch() for n in range(1009)] and None,
    "names like its own": lambda folder: [(folder / f".{n}" / f".{n}").mkdir(parents=True) for n in range(7)] and None,
    "odd names": lambda folder: [(folder / name).mkdir() for name in ("\n", "\udcff", " ", "-rf", "é" * 100)] and None,
}


@pytest.mark.parametrize("name", BUILDS)
def test_whatever_a_program_built_is_removed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    BUILDS[name](folder)
    recursion = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    try:
        scratch.remove(folder)
    finally:
        sys.setrecursionlimit(recursion)
    assert not folder.exists()


def test_what_links_lead_to_stays(tmp_path: Path) -> None:
    folder, outside = tmp_path / "run", tmp_path / "outside"
    for one in (folder, outside):
        one.mkdir()
    (outside / "kept").write_text("kept")
    outside.chmod(0o755)
    linked(folder, outside)
    scratch.remove(folder)
    assert not folder.exists()
    assert (outside / "kept").read_text() == "kept"
    assert outside.stat().st_mode & 0o777 == 0o755


def test_to_remove_what_is_gone_is_no_error(tmp_path: Path) -> None:
    scratch.remove(tmp_path / "gone")


def used(folder: Path, limit: int = 5 * MIB) -> int:
    return disk.used(os.getpid(), folder, limit)


def test_every_kind_of_file_is_counted(tmp_path: Path) -> None:
    assert used(tmp_path) == 0
    for n in range(7):
        (tmp_path / f"{n}").touch()
    assert used(tmp_path) == 7 * disk.PAGE
    (tmp_path / "large").write_bytes(b"x" * MIB)
    assert used(tmp_path) == pytest.approx(MIB + 7 * disk.PAGE, abs=2 * disk.PAGE)
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    assert used(tmp_path) < 2 * MIB
    (tmp_path / "link").symlink_to("/usr")
    assert used(tmp_path) < 2 * MIB


def test_counting_stops_at_the_limit_and_at_a_depth(tmp_path: Path) -> None:
    for n in range(211):
        (tmp_path / f"{n}").touch()
    assert used(tmp_path, 100 * disk.PAGE) == 101 * disk.PAGE
    deep(tmp_path, disk.DEEPEST - 2)
    assert used(tmp_path, 100 * MIB) < 100 * MIB
    deep(tmp_path, 5, "e" * 200)
    other = tmp_path / "other"
    other.mkdir()
    deep(other, disk.DEEPEST)
    assert used(tmp_path, 100 * MIB) > 100 * MIB
    scratch.remove(other)
    other.mkdir()
    deep(other, 23, "n" * 250)
    assert used(tmp_path, 100 * MIB) > 100 * MIB


def test_a_file_without_a_name_is_counted_while_it_is_open_or_mapped(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    with (tmp_path / "a").open("wb+") as file:
        file.write(b"x" * MIB)
        file.flush()
        (tmp_path / "a").unlink()
        assert used(tmp_path) == pytest.approx(MIB, abs=2 * disk.PAGE)
        mapped = libc.mmap(None, ctypes.c_size_t(4096), 1, 1, file.fileno(), ctypes.c_long(0))
        assert used(tmp_path) == pytest.approx(MIB, abs=2 * disk.PAGE)
    assert used(tmp_path) == 5 * MIB  # nothing tells how large it is: as large as a file may be
    libc.munmap(ctypes.c_void_p(mapped), ctypes.c_size_t(4096))
    assert used(tmp_path) == 0


LOOK = """
import os
room = os.statvfs('.')
print(room.f_blocks * room.f_frsize, room.f_files, os.stat('.').st_dev, os.getcwd())
open('a', 'w').write('x'); print(os.listdir('.'))
"""


@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_bounds_a_folder_that_is_a_tmpfs(name: str) -> None:
    done = sandbox.run(LOOK, limits=SHORT, name=name)
    size, inodes, device = map(int, done.stdout.split()[:3])
    if device == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("the kernel gives no tmpfs here")
    assert size == 3 * MIB + disk.PAGE
    assert name == "bubblewrap" or inodes == 3 * MIB // disk.PAGE + 2


@pytest.mark.slow
@pytest.mark.parametrize("tmpfs", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_files_are_there_and_a_full_disk_is_reported(name: str, tmpfs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "TMPFS", tmpfs)
    done = sandbox.run("print(open('d/a').read()); open('b', 'w').write('b')", files=[("d/a", b"given")], name=name)
    assert (done.stdout, done.ok) == ("given\n", True), done
    fill = "for n in range(64):\n    with open(f'{n}', 'wb') as f: f.write(b'x' * 65536)\nwhile True: pass"
    assert sandbox.run(fill, limits=SHORT, name=name).stopped == "disk"
    quiet = fill.replace("    with", "    try:\n     with").replace("65536)\n", "65536)\n    except OSError: pass\n")
    assert sandbox.run(quiet, limits=SHORT, name=name).stopped == "disk"


MAPPED = """
import mmap, os
for n in range(4):
    with open(f'{n}', 'w+b') as f:
        os.ftruncate(f.fileno(), 1 << 20)
        m = mmap.mmap(f.fileno(), 1 << 20)
    for at in range(0, 1 << 20, 4096): m[at] = 1
while True: pass  # a folder that the kernel does not bound is counted
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_a_mapping_fills_is_reported(name: str) -> None:
    done = sandbox.run(MAPPED, limits=SHORT, name=name)
    assert (done.stopped, done.raised) == ("disk", None), done
    judged = sandbox.judge(MAPPED, "def test_it(): assert True", limits=SHORT, name=name)
    assert "it wrote more than 3,145,728 bytes" in judged.tests[0].message


@pytest.mark.parametrize("write", ["f.write(b'x' * (4 << 20))", "f.truncate(4 << 20)"])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_larger_than_the_disk_is_reported(name: str, write: str) -> None:
    done = sandbox.run(f"with open('a', 'wb') as f: {write}", limits=SHORT, name=name)
    assert done.stopped == "disk", done


def test_a_disk_of_nothing_cannot_be_written() -> None:
    none = Limits(seconds=4.0, memory=128 * MIB, disk=0)
    assert sandbox.run("open('a', 'w')", limits=none).raised.type == "PermissionError"  # type: ignore[union-attr]


@pytest.mark.parametrize("error", [RecursionError("x"), ValueError("x"), OSError(5, "x"), KeyboardInterrupt()])
@pytest.mark.parametrize("look", ["resident", "used"])
def test_a_watcher_that_fails_kills_what_it_watches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException, look: str
) -> None:
    seen: list[int] = []

    def fail(pid: int, *_: object) -> int:
        if seen.count(pid) > 2:
            raise error
        seen.append(pid)
        return 0

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(*((watch, "resident", fail) if look == "resident" else (disk, "used", fail)))
    with pytest.raises(type(error)):
        sandbox.run("while True: pass", limits=Limits(seconds=600.0, memory=128 * MIB))
    assert not Path(f"/proc/{seen[0]}").exists()
    assert not list(tmp_path.glob("clearhead-run-*"))


def test_a_judged_program_ends_when_its_tests_are_no_longer_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    pids: set[int] = set()
    watched, main = watch.resident, threading.get_ident()

    def fail(pid: int) -> int | None:
        pids.add(pid)
        if threading.get_ident() == main and len(pids) == 2:
            raise KeyboardInterrupt
        return watched(pid)

    monkeypatch.setattr(watch, "resident", fail)
    with pytest.raises(KeyboardInterrupt):
        sandbox.judge("while True: pass", "assert f(1)", limits=Limits(seconds=600.0, memory=128 * MIB))
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_launch_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    launched: list[str] = []
    launch = pool.Worker.launch

    def fail_the_second(self: pool.Worker, *given: object) -> None:
        launched.append("x")
        if len(launched) == 2:
            raise OSError(24, "Too many open files")
        launch(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(pool.Worker, "launch", fail_the_second)
    before = {one.name for one in Path("/proc/self/fd").iterdir()}
    with pytest.raises(OSError, match="Too many open files"):
        sandbox.judge("while True: pass", "assert f(1)", limits=SHORT, name="landlock")
    assert not list(tmp_path.glob("clearhead-run-*"))
    assert {one.name for one in Path("/proc/self/fd").iterdir()} <= before


@pytest.mark.skipif("landlock" not in NAMES, reason="no Landlock here")
def test_a_program_ends_with_its_worker() -> None:
    running = watch.Running([sandbox.Chunk("while True: pass")], limits=SHORT, stdin="", files=(), want=(), salt=5)
    worker = pool.worker((), 5)
    running.launch(worker)
    killed = threading.Timer(0.5, os.kill, (worker.process.pid, signal.SIGKILL))
    killed.start()
    with pytest.raises(watch.Interrupted):
        running.finish()
    killed.join()
    assert running.pid is not None
    for _ in range(500):  # the kernel sends the signal; it is not told when it has arrived
        if not Path(f"/proc/{running.pid}").exists():
            break
        time.sleep(0.01)
    assert not Path(f"/proc/{running.pid}").exists()
