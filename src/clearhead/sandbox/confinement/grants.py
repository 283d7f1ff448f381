"""List the files a confined program may read: the interpreter, installed packages, shared libraries.

Whole folders are granted, without their private parts: the packs with their answers, wherever the package is installed
(in its own virtual environment, in a checkout, in `/usr/local/lib`, in a zip file), packs loaded from elsewhere, the
data folder, the home folder, temporary files, other copies of the package. If a folder holds something private, its
other entries are granted one by one. The interpreter's own folders stay granted even inside a private folder.
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

_ANSWERS = ("packs", "studio")  # folders of this package
_PACKAGES = ("", "python3*/*-packages/", "lib/python3*/*-packages/", "local/lib/python3*/*-packages/")
_COPIES = tuple(f"{folder}{name}" for folder in _PACKAGES for name in ("clearhead*", "[!_]*[-_.]clearhead*"))
# Of /usr, only what an interpreter and its libraries load or read as data: no /usr/share/doc, /usr/src, /usr/games.
_SYSTEM = ("lib", "lib32", "lib64", "libexec", "local/lib", "local/lib64", "local/cuda", "share/zoneinfo",
           "share/fonts", "share/locale", "share/i18n", "share/tcltk")  # fmt: skip
_PACKAGE = Path(clearhead.__file__).resolve().parent
_hidden: set[Path] = set()


def hide(*folders: Path) -> None:
    """Hide these paths from every program that starts from now on, except the interpreter's files inside them."""
    _hidden.update(_cut(map(_real, folders)))


def hidden() -> list[Path]:
    """Return the user's private paths that are inside a granted folder."""
    own = {_real(Path(tempfile.gettempdir()))}
    with contextlib.suppress(RuntimeError):  # it has no home
        own.add(_real(Path.home()))
    own |= {_real(Path(os.environ[name])) for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME") if os.environ.get(name)}
    if sys.pycache_prefix:
        own.add(_real(Path(sys.pycache_prefix)))
    return sorted({*_cut(own), *_hidden})


def _cut(paths: Iterable[Path]) -> set[Path]:
    """Return those paths that a granted folder would expose."""
    return {path for path in paths if any(folder in path.parents for folder in _granted())}


@cache
def _wanted() -> frozenset[Path]:
    """Return the paths to grant under the names in use; some may be symbolic links."""
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
    """Return the private paths of this package, wherever it is installed: its packs, its checkout, other copies."""
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
    """Return the paths to grant, each with everything below it. `private` is cut out, and so are the packs.

    The paths are resolved; symbolic links that are in use are listed as well.

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
    """Yield the path, or, if something in `away` is below it, its other entries. Symbolic links are left out.

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
    except OSError:  # this user may not list the folder, so its entries are not granted
        return
    for inner in entries:
        if not inner.is_symlink():
            yield from without(inner, [private for private in below if inside(private, [inner])])


def links(granted: Iterable[Path]) -> dict[Path, Path]:
    """Return the symbolic links that a root of granted paths needs: link -> the real path it leads to."""
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
