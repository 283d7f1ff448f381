"""Give a program its own folder: a tmpfs of limited size, in a mount namespace that ends with the process.

The kernel then bounds what the program writes, including deleted files that are still open or mapped, and nothing has
to be removed afterwards. This needs a user namespace, or root. Without them the folder is an ordinary one, and
`disk.used` counts its content.
"""

import base64
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

NOBODY = 65534
PAGE = 4096
_NEW_MOUNTS, _NEW_USER = 0x20000, 0x10000000
_NO_SUID, _NO_DEVICES, _NO_EXEC, _RECURSIVE, _PRIVATE = 2, 4, 8, 0x4000, 0x40000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4

_libc = ctypes.CDLL(None, use_errno=True)


def own(folder: Path, size: int) -> bool:
    """Mount a tmpfs of `size` bytes on `folder`, visible to this process only. Return False if the kernel forbids it.

    In the new user namespace this process is user nobody, and a capability that it might regain is valid only there.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        if user == 0:
            os.setgroups([])
        if _libc.unshare(_NEW_USER | _NEW_MOUNTS) == 0:
            _map("setgroups", "deny")
            _map("uid_map", f"{NOBODY} {user} 1")
            _map("gid_map", f"{NOBODY} {group} 1")
        elif user != 0 or _libc.unshare(_NEW_MOUNTS) != 0:
            return False
    except OSError:
        return False
    count = pages(size)
    options = f"size={count * PAGE},nr_inodes={count + 1},mode=700".encode()
    flags = _NO_SUID | _NO_DEVICES | _NO_EXEC
    return (
        _libc.mount(None, b"/", None, _RECURSIVE | _PRIVATE, None) == 0
        and _libc.mount(b"none", os.fsencode(folder), b"tmpfs", flags, options) == 0
    )


def pages(size: int) -> int:
    """Return the pages of a folder for `size` bytes: one more than these need, so that a full one is over its limit."""
    return -(-size // PAGE) + 1


def _map(file: str, text: str) -> None:
    handle = os.open(f"/proc/self/{file}", os.O_WRONLY)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def offered() -> bool:
    """Return whether a program can have its own tmpfs here, by trying it in a short-lived process."""
    tries = f"from {__name__} import Path, own; sys.exit(not own(Path('/tmp'), 1))"
    program = f"import sys; sys.path += {[path for path in sys.path if path]!r}; {tries}"
    return subprocess.run([sys.executable, "-P", "-s", "-c", program], capture_output=True).returncode == 0


def fill(folder: Path, files: Mapping[str, str]) -> None:
    """Write the program's own files (name: base64) into its folder."""
    for name, data in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(base64.b64decode(data))


def become_nobody() -> None:
    """Give up root irrevocably: become an unprivileged user without groups. Raises OSError if that fails."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    # The kernel resets both when the user changes.
    _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
