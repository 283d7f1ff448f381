"""The files a confined program may read: the interpreter, installed packages, shared libraries. No packs, no home.

Folders are granted whole, and what is private is cut out of each: the packs with their answers, wherever the package is
installed (in its own virtual environment, in a checkout, in `/usr/local/lib`, in a zip file), packs loaded from
elsewhere, the data folder, the home folder, temporary files, other copies of the package. A folder that holds something
private is replaced by what else is in it. The interpreter's own folders stay granted where they are in a private one.
"""

import contextlib
import os
import site
import sys
import sysconfig
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import clearhead

_ANSWERS = ("packs", "studio")  # of our own package
_PACKAGES = ("", "python3*/*-packages/", "lib/python3*/*-packages/", "local/lib/python3*/*-packages/")
_COPIES = tuple(f"{folder}{name}" for folder in _PACKAGES for name in ("clearhead*", "[!_]*[-_.]clearhead*"))
# Of /usr, only what an interpreter and its libraries load or read as data: no /usr/share/doc, /usr/src, /usr/games.
_SYSTEM = ("lib", "lib32", "lib64", "libexec", "local/lib", "local/lib64", "local/cuda", "share/zoneinfo",
           "share/fonts", "share/locale", "share/i18n", "share/tcltk")  # fmt: skip
_PACKAGE = Path(clearhead.__file__).resolve().parent
_hidden: set[Path] = set()


def hide(*folders: Path) -> None:
    """No program that starts from now on reads these, wherever they are; except the interpreter's own, inside them."""
    _hidden.update(_cut(map(_real, folders)))


def hidden() -> list[Path]:
    """What is private to this user, as far as it is inside a folder that is granted."""
    own = {_real(Path(tempfile.gettempdir()))}
    with contextlib.suppress(RuntimeError):  # it has no home
        own.add(_real(Path.home()))
    own |= {_real(Path(os.environ[name])) for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME") if os.environ.get(name)}
    if sys.pycache_prefix:
        own.add(_real(Path(sys.pycache_prefix)))
    return sorted({*_cut(own), *_hidden})


def _cut(paths: Iterable[Path]) -> set[Path]:
    """Those that something granted would show."""
    return {path for path in paths if any(folder in path.parents for folder in _granted())}


@cache
def _wanted() -> frozenset[Path]:
    """Paths to grant by the names they are used by; some may be symbolic links."""
    paths = {Path("/usr") / name for name in _SYSTEM}
    paths |= {Path("/lib"), Path("/lib64"), Path("/etc/ld.so.cache"), Path("/etc/localtime")}
    paths |= {Path("/dev/null"), Path("/dev/zero"), Path("/dev/urandom")}
    paths |= {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {Path(sys.base_prefix) / "lib", *map(Path, site.getsitepackages())}
    return frozenset(paths)


@cache
def _granted() -> frozenset[Path]:
    return frozenset(map(_real, _wanted()))


@cache
def _private() -> frozenset[Path]:
    """What is private wherever this package is installed: its packs, its checkout, other copies of it."""
    paths = {_PACKAGE / name for name in _ANSWERS}
    paths |= {path for path in _PACKAGE.parents if path.is_file()}  # a zip file
    if _PACKAGE.parent.name == "src" and (_PACKAGE.parents[1] / "pyproject.toml").exists():
        paths.add(_PACKAGE.parents[1])
    for folder in _granted():
        with contextlib.suppress(OSError):
            for copy in (_real(match) for pattern in _COPIES for match in folder.glob(pattern)):
                if copy.name == "clearhead" and copy.parent.name.endswith("-packages"):
                    paths |= {copy / name for name in _ANSWERS if (copy / name).exists()}
                elif copy.suffix != ".dist-info":  # a zip file, a wheel, a pack
                    paths.add(copy)
    return frozenset(paths)


def readable(private: Sequence[Path] = ()) -> list[Path]:
    """Paths to grant, with all that is below them; `private` is cut out too, beside the packs.

    They are real paths, and the names they are used by where those are symbolic links.

    >>> from clearhead.course import shipped
    >>> pack = shipped()[0].resolve()
    >>> any(path in (pack, *pack.parents) for path in readable())
    False
    """
    return _readable(tuple(sorted(private)))


@cache
def _readable(private: tuple[Path, ...]) -> list[Path]:
    away = {*_private(), *map(_real, private)}
    paths = {rest for path in _granted() for rest in without(path, away)}
    if _PACKAGE.is_dir():
        paths |= {path for path in _PACKAGE.iterdir() if path.name not in _ANSWERS and not path.is_symlink()}
    names = {name for name in _wanted() if name != (real := _real(name)) and inside(real, paths)}
    return sorted({path for path in paths if not paths.intersection(path.parents)} | names)


def without(path: Path, away: Iterable[Path]) -> Iterator[Path]:
    """The path, or, where something in `away` is below it, all else that is in it. Symbolic links are left out.

    >>> list(without(Path("/usr/lib"), [Path("/srv")])), list(without(Path("/usr"), [Path("/usr")]))
    ([PosixPath('/usr/lib')], [])
    """
    below = [private for private in away if path in private.parents]
    if path in away:
        return
    if not below:
        yield path
        return
    try:
        entries = sorted(path.iterdir())
    except OSError:  # this user may not list it, so what is in it is not granted
        return
    for inner in entries:
        if not inner.is_symlink():
            yield from without(inner, [private for private in below if inside(private, [inner])])


def links(granted: Iterable[Path]) -> dict[Path, Path]:
    """Symbolic links to make in a root that holds nothing but what is granted: link -> the real path it leads to."""
    real = {path for path in granted if path == _real(path)}
    paths = set(_wanted())
    for folder in {parent for path in real for parent in path.parents if inside(parent, _granted())}:
        if not inside(folder, real):
            with contextlib.suppress(OSError):
                paths |= {path for path in folder.iterdir() if path.is_symlink()}
    pairs = {path: _real(path) for path in paths if path != _real(path)}
    return {link: to for link, to in pairs.items() if inside(to, real) and not inside(_real(link.parent), real)}


def inside(path: Path, folders: Collection[Path]) -> bool:
    """Return whether the path is one of the folders or inside one."""
    return path in folders or any(parent in folders for parent in path.parents)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
