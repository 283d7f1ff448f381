"""The user's folders, and the errors for files that cannot be read or written."""

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path
from typing import Literal

from clearhead.errors import ModelError, OptionError
from clearhead.messages import Message, message

_REMEDIES = {
    errno.ENOENT: message("Give a file in a folder that exists."),
    errno.ENOTDIR: message("Give a file in a folder that exists."),
    errno.EISDIR: message("Give the path of a file."),
    errno.EACCES: message("Give a path that you have access to."),
    errno.EPERM: message("Give a path that you have access to."),
    errno.EROFS: message("Give a path that you have access to."),
    errno.ENOSPC: message("Make room, or give another path."),
    errno.EDQUOT: message("Make room, or give another path."),
    errno.EFBIG: message("Make room, or give another path."),
    errno.ENAMETOOLONG: message("Give a shorter name."),
}


_APPLE = {"cache": "Caches", "config": "Application Support"}
_WINDOWS = {"cache": ("LOCALAPPDATA", "Local"), "config": ("APPDATA", "Roaming")}


def user_folder(kind: Literal["cache", "config"]) -> Path:
    """Return this package's folder in $XDG_CACHE_HOME or $XDG_CONFIG_HOME, else where the operating system keeps them.

    The studio uses platformdirs, which the library does not require.
    """
    home = _home()
    if chosen := os.environ.get(f"XDG_{kind.upper()}_HOME"):
        folder = Path(chosen)
    elif sys.platform == "darwin":
        folder = home / "Library" / _APPLE[kind]
    elif sys.platform == "win32":
        variable, name = _WINDOWS[kind]
        folder = Path(os.environ.get(variable) or home / "AppData" / name)
    else:
        folder = home / f".{kind}"
    return folder / "clearhead"


def _home() -> Path:
    """Return the home folder; a folder that does not exist for a user without one, as a container may have."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent")


def make_private(folder: Path) -> None:
    """Make a folder, and those above it, that only its owner may enter, whatever the umask.

    An existing folder loses its permissions for others: under umask 000 they could replace the answers of a course.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        with contextlib.suppress(PermissionError):  # another user owns the folder
            folder.chmod(0o700)


def expanded(path: Path) -> Path:
    """Return the path with "~" replaced by the home folder; unchanged if the named user has none.

    >>> str(expanded(Path("~nobody-of-this-name/x")))
    '~nobody-of-this-name/x'
    """
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def unwritable(path: str | Path, error: Exception, remedy: str | None = None) -> OptionError:
    """Return the error for a file that could not be written. `remedy` says what to do where the path was not given.

    >>> print(unwritable("maps.html", IsADirectoryError(errno.EISDIR, "Is a directory")))
    maps.html cannot be written: Is a directory. Give the path of a file.
    """
    return OptionError(
        message(
            "%(path)s cannot be written: %(why)s. %(remedy)s",
            path=path,
            why=_why(error),
            remedy=remedy or _remedy(error),
        )
    )


def unreadable(path: str | Path, error: Exception, expected: str = "a text file") -> ModelError:
    """Return the error for a file that could not be read.

    >>> print(unreadable("a.txt", FileNotFoundError(errno.ENOENT, "No such file or directory")))
    a.txt cannot be read: No such file or directory. Give the path of a text file.
    """
    return ModelError(
        message(
            "%(path)s cannot be read: %(why)s. Give the path of %(expected)s.",
            path=path,
            why=_why(error),
            expected=expected,
        )
    )


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "a path cannot hold a null character"
    return str(error).strip().rstrip(".") or type(error).__name__


def _remedy(error: Exception) -> Message:
    return _REMEDIES.get(getattr(error, "errno", None) or 0, message("Give another place."))
