"""The user's folders, files and folders that are written whole or not at all, and errors for those that cannot be."""

import contextlib
import errno
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
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


@contextlib.contextmanager
def whole_file(path: str | Path, remedy: str | None = None) -> Iterator[Path]:
    """Yield the path of a draft beside the file; it replaces the file when the block ends, and is removed if it fails.

    After a full disk or Ctrl-C the file is as it was before. A link stays a link, and a file keeps its permissions. A
    device or a pipe is yielded itself.

    Args:
        remedy: what the error tells a user to do who did not give the path.

    Raises:
        OptionError: the file cannot be written, or the block raised an OSError.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "maps.txt"
    >>> with whole_file(path) as draft:
    ...     _ = draft.write_text("a map")
    >>> path.read_text()
    'a map'
    """
    draft = None
    try:
        mode = _mode(path)
        if mode is not None and not stat.S_ISREG(mode):
            yield Path(path)
            return
        target = Path(os.path.realpath(path))
        draft = target.with_name(_draft_name())
        draft.touch(exist_ok=False)
        if mode is not None:
            draft.chmod(stat.S_IMODE(mode))
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())  # some file systems notice only here that the disk is full
        draft.replace(target)
    except OSError as error:
        raise unwritable(path, error, remedy) from error
    finally:
        if draft is not None:
            discard(draft)


def _mode(path: str | Path) -> int | None:
    """Return the mode of a file that may be written to; None if it does not exist."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return None
    except ValueError as error:  # a null character
        raise unwritable(path, error) from error
    wrong = errno.EISDIR if stat.S_ISDIR(mode) else 0 if os.access(path, os.W_OK) else errno.EACCES
    if wrong:
        raise OSError(wrong, os.strerror(wrong))
    return mode


def _draft_name() -> str:
    return f".{secrets.token_hex(6)}.draft"


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder, whose content becomes the folder's when the block ends; if it fails, nothing is left.

    Args:
        path: does not exist, or is an empty folder.

    Raises:
        OptionError: the folder cannot be written, or the block raised an OSError.
    """
    target = Path(os.path.realpath(path))
    made = [folder for folder in target.parents if not folder.exists()]
    there = target.exists()
    draft = (target if there else target.parent) / _draft_name()
    moved: list[Path] = []
    try:
        draft.mkdir(parents=True)
        yield draft
        if there:
            for entry in sorted(draft.iterdir()):
                moved.append(entry.rename(target / entry.name))
            draft.rmdir()
        else:
            draft.rename(target)
    except BaseException as error:
        for entry in (*moved, draft):
            shutil.rmtree(entry, ignore_errors=True)
            discard(entry)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


def write_new(path: Path, text: str) -> None:
    """Write a text file that does not exist yet; a link of its name is not followed. Nothing is left if it fails.

    Raises:
        OptionError: the file exists, or cannot be written.
    """
    ours = not path.exists() and not path.is_symlink()
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        ours = False
    except OSError as error:
        ours = ours and not isinstance(error, FileExistsError)  # which another program has just made
        raise unwritable(path, error) from error
    finally:
        if ours:
            discard(path)


def discard(draft: Path) -> None:
    """Remove an incomplete file if it is there and can be removed. The error to report is why it is incomplete.

    On a read-only file system Linux refuses to remove even a file that does not exist.
    """
    with contextlib.suppress(OSError):
        draft.unlink(missing_ok=True)


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
            remedy=remedy or remedy_of(error),
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


def remedy_of(error: Exception) -> Message:
    """Return what a user can do about a path that the operating system refused."""
    return _REMEDIES.get(getattr(error, "errno", None) or 0, message("Give another place."))
