"""Count the bytes in a program's folder, without recursion, whatever the program built there."""

import contextlib
import errno
import os
import stat
from pathlib import Path

from clearhead.sandbox.confinement.tmpfs import PAGE

DEEPEST = 128  # nesting of folders that is counted; anything deeper counts as over the limit


def used(pid: int, folder: Path, limit: int) -> int:
    """Return the bytes of the program's files, at least a page each; some number above `limit` if they exceed it."""
    inside = f"/proc/{pid}/root{folder}"
    with contextlib.suppress(OSError):
        if os.stat(inside).st_dev != os.stat(folder).st_dev:  # noqa: PTH116 — a path through /proc
            room = os.statvfs(inside)
            inodes = room.f_files - room.f_ffree - 1 if room.f_files else 0
            return max((room.f_blocks - room.f_bfree) * room.f_frsize, inodes * PAGE)
    return _counted(folder, limit) + _deleted(pid, folder, limit)


def _counted(folder: Path, limit: int) -> int:
    """Return the bytes of the files in the folder. Stops at the limit, so at most limit / PAGE files are read."""
    total, waiting = 0, [[""]]  # a list of folders for each level
    while waiting:
        if not waiting[-1]:
            waiting.pop()
            continue
        path, inner = waiting[-1].pop(), []
        try:
            with os.scandir(os.path.join(folder, path)) as entries:  # noqa: PTH118
                for entry in entries:
                    total += max(_blocks(entry), PAGE)
                    if entry.is_dir(follow_symlinks=False):
                        inner.append(os.path.join(path, entry.name))  # noqa: PTH118
                    if total > limit:
                        return total
        except OSError as error:  # the folder is gone, or cannot be written to
            if error.errno == errno.ENAMETOOLONG:
                return limit + PAGE
        waiting.append(inner)
        if len(waiting) > DEEPEST:
            return limit + PAGE
    return total


def _blocks(entry: "os.DirEntry[str]") -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except OSError:  # removed since it was listed
        return 0


def _deleted(pid: int, folder: Path, limit: int) -> int:
    """Return the bytes of deleted files that are still open or mapped. One that is only mapped counts as `limit`."""
    try:
        device = os.stat(folder).st_dev  # noqa: PTH116
        seen = {}
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                about = os.stat(f"/proc/{pid}/fd/{name}")  # noqa: PTH116
                if about.st_dev == device and about.st_nlink == 0 and stat.S_ISREG(about.st_mode):
                    seen[about.st_ino] = about.st_blocks * 512
        mapped = Path(f"/proc/{pid}/maps").read_bytes()
    except OSError:  # it has ended
        return 0
    for row in mapped.splitlines():
        fields = row.split(maxsplit=5)
        if len(fields) == 6 and fields[5].endswith(b" (deleted)") and fields[5].startswith(os.fsencode(folder)):
            seen.setdefault(int(fields[4]), limit)
    return sum(seen.values())
