"""Temporary folders that a killed process does not leave behind for good.

Each process has one folder in the temporary folder of the system, `clearhead-scratch-XXXXXXXX`, and makes all others in
it. It holds a lock (flock) on that folder as long as it lives; the kernel drops the lock however the process ends. So
a folder that can be locked belongs to no living process, whatever process ids were used again since, and the next start
removes it. systemd-tmpfiles leaves a locked folder alone too, however old its files are.
"""

import atexit
import contextlib
import os
import re
import shutil
import stat
import tempfile
import threading
from pathlib import Path
from typing import Any

flock: Any  # None where this is not a Unix system: nothing is locked, and so nothing of others is removed
try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:
    flock = None

PREFIX = "clearhead-scratch-"
OURS = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")
_TRIES = 100  # each fails only where another start removed the new folder in the moment before it was locked

_guard = threading.Lock()
_home: tuple[int, Path, int | None] | None = None  # process id, folder, descriptor that holds the lock


def folder(prefix: str = "") -> Path:
    """A new, empty folder that only this user may enter. It is gone when the process ends, or at the next start.

    >>> place = folder("run-")
    >>> place.is_dir(), list(place.iterdir())
    (True, [])
    >>> remove(place)
    """
    with _guard:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=_process_folder()))


def remove(place: Path) -> None:
    """Remove a folder and all in it, also what a program made unreadable. Links are removed and not followed."""
    shutil.rmtree(place, ignore_errors=True)
    if not place.is_symlink() and place.is_dir():
        for root, names, _files in os.walk(place):  # top-down, so that each folder is opened up before it is entered
            for name in (".", *names):
                inside = Path(root, name)
                if not inside.is_symlink():
                    with contextlib.suppress(OSError):
                        inside.chmod(0o700)
        shutil.rmtree(place, ignore_errors=True)


def sweep() -> list[Path]:
    """Remove what ended processes of this user left in the temporary folder; gives what was removed.

    A folder is removed if it has our name, belongs to this user, is no link, is closed to others, and nobody holds its
    lock. Never raises: what cannot be removed stays.
    """
    removed: list[Path] = []
    if flock is None:
        return removed
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if OURS.fullmatch(entry.name):
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
        flock(descriptor, LOCK_EX | LOCK_NB)  # held until all is removed, so that two starts do not meet in it
        remove(place)
        return True
    finally:
        os.close(descriptor)


def _process_folder() -> Path:
    """This process's folder; a forked child and a process whose folder was taken away get one of their own."""
    global _home
    if _home is None or _home[0] != os.getpid() or not _home[1].is_dir():
        if _home is None:
            sweep()
        elif _home[0] != os.getpid() and _home[2] is not None:
            os.close(_home[2])  # the parent's, inherited: its lock must end with the parent
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
        except (FileNotFoundError, BlockingIOError):  # another start took it for one left behind
            pass
        except OSError:  # a file system without locks: others cannot lock it either, and leave it alone
            return place, descriptor
        if descriptor is not None:
            os.close(descriptor)
    raise FileNotFoundError(f"{tempfile.gettempdir()}: new folders disappear; set TMPDIR to another folder")


@atexit.register
def _leave() -> None:
    if _home is not None and _home[0] == os.getpid():
        remove(_home[1])
