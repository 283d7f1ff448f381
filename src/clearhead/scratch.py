"""Temporary folders that are removed even if their process is killed.

Each process has one folder in the system's temporary folder, `clearhead-scratch-XXXXXXXX`, and makes all others in it.
It holds a lock (flock) on that folder as long as it runs; the kernel drops the lock however the process ends. A folder
that can be locked therefore belongs to no running process, even if its process id was reused, and the next start
removes it. systemd-tmpfiles leaves a locked folder alone, however old its files are.
"""

import atexit
import contextlib
import itertools
import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
from pathlib import Path
from typing import Any

flock: Any  # None if this is not a Unix system: without locks, no folder of another process is removed
try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:
    flock = None

PREFIX = "clearhead-scratch-"
NAME = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")
_NO_READ = getattr(os, "O_PATH", 0)  # opens a folder without read permission; only Linux has it
_OPEN = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_TRIES = 100  # a try fails only if another process removed the new folder just before it was locked

_guard = threading.Lock()
_home: tuple[int, Path, int | None] | None = None  # process id, folder, descriptor that holds the lock


def folder(prefix: str = "") -> Path:
    """Return a new, empty folder that only this user may enter. It is removed at exit, or by the next process.

    >>> place = folder("run-")
    >>> place.is_dir(), list(place.iterdir())
    (True, [])
    >>> remove(place)
    """
    with _guard:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=_process_folder()))


def remove(place: Path) -> None:
    """Remove a folder and its contents, whatever their depth, mode or path length. What cannot be removed stays.

    An inner folder is moved up to the top before it is emptied, so no path has more than two names (PATH_MAX) and
    nothing recurses. Links are removed and not followed.
    """
    if os.open not in os.supports_dir_fd:  # not a Unix system
        shutil.rmtree(place, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        if not place.is_symlink():
            place.chmod(stat.S_IRWXU)
        top = os.open(place, _OPEN)
        try:
            _clear(top)
        finally:
            os.close(top)
        place.rmdir()


def sweep() -> list[Path]:
    """Remove the folders that ended processes of this user left behind; return their paths.

    A folder is removed if it has our name, belongs to this user, is not a link, is closed to others, and nobody holds
    its lock. Never raises: what cannot be removed stays.
    """
    removed: list[Path] = []
    if flock is None:
        return removed
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if NAME.fullmatch(entry.name):
                place = Path(entry.path)
                with contextlib.suppress(OSError):
                    if _remove_if_left(place):
                        removed.append(place)
    return removed


def _remove_if_left(place: Path) -> bool:
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        kind = os.fstat(descriptor)
        if kind.st_uid != os.getuid() or stat.S_IMODE(kind.st_mode) & 0o077:
            return False
        flock(descriptor, LOCK_EX | LOCK_NB)  # held until all is removed, so only one process removes it
        remove(place)
        return True
    finally:
        os.close(descriptor)


def _process_folder() -> Path:
    """Return this process's folder. A forked child, or a process whose folder was removed, gets a new one."""
    global _home
    if _home is None or _home[0] != os.getpid() or not _home[1].is_dir():
        if _home is None:
            sweep()
        elif _home[0] != os.getpid() and _home[2] is not None:
            os.close(_home[2])  # inherited from the parent: its lock must end with the parent
        _home = (os.getpid(), *_locked_folder())
    return _home[1]


def _locked_folder() -> tuple[Path, int | None]:
    for _ in range(_TRIES):
        place = Path(tempfile.mkdtemp(prefix=PREFIX))
        if flock is None:
            return place, None
        descriptor = None
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            flock(descriptor, LOCK_EX | LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), place.lstat()):
                return place, descriptor
        except (FileNotFoundError, BlockingIOError):
            pass  # another process swept it before it was locked: try again with a new one
        except OSError:  # a file system without locks: others cannot lock it either, so they leave it alone
            return place, descriptor
        if descriptor is not None:
            os.close(descriptor)
    raise FileNotFoundError(f"{tempfile.gettempdir()}: new folders disappear; set TMPDIR to another folder")


@atexit.register
def _leave() -> None:
    if _home is not None and _home[0] == os.getpid():
        remove(_home[1])


def _clear(top: int) -> None:
    free = (f".{secrets.token_hex(8)}-{number}" for number in itertools.count())
    waiting = [name for name in os.listdir(top) if not _try_remove(name, top)]
    while waiting:
        name = waiting.pop()
        with contextlib.suppress(OSError):
            folder = os.open(name, _OPEN, dir_fd=top)
            try:
                for inner in os.listdir(folder):  # noqa: PTH208
                    if not _try_remove(inner, folder):
                        moved = next(free)
                        os.rename(inner, moved, src_dir_fd=folder, dst_dir_fd=top)
                        waiting.append(moved)
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=top)


def _try_remove(name: str, folder: int) -> bool:
    """Remove a file or an empty folder; return False for a folder with contents, which is made listable and movable."""
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            return True
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=folder)
            return True
        handle = os.open(name, _OPEN | _NO_READ, dir_fd=folder)
        try:  # never through a symbolic link
            os.chmod(f"/proc/self/fd/{handle}" if _NO_READ else handle, stat.S_IRWXU)  # noqa: PTH101
        finally:
            os.close(handle)
    except OSError:
        return True  # it cannot be removed or opened: leave it
    return False
