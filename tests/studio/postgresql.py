"""A throw-away PostgreSQL server for the tests: its own folder, a socket in it, no port, no password."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

OWNERS = ("postgres", "nobody")  # root may not run the server


def programs() -> Path | None:
    """The folder of initdb and postgres, the newest version found; None where there is none."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    return versions[-1].parent if versions else None


class Server:
    """A running server; `database()` is a URL under which nothing is kept yet: a schema of its own."""

    def __init__(self, folder: Path, control: Callable[..., object]) -> None:
        self._folder = folder
        self.control = control  # pg_ctl

    def database(self) -> str:
        import psycopg

        url, schema = f"postgresql://studio@/postgres?host={self._folder}", f"t{uuid.uuid4().hex}"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"create schema {schema}")  # type: ignore[arg-type]
        return f"{url}&options=-csearch_path%3D{schema}"


@contextmanager
def server() -> Iterator[Server]:
    """Start a server and end it. What would make it safe and slow is off: nothing here outlives the tests."""
    bin = programs()
    assert bin is not None
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path must be short
    who: dict[str, object] = {}
    if os.getuid() == 0:
        owner = next(pwd.getpwnam(name) for name in OWNERS if name in {one.pw_name for one in pwd.getpwall()})
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        who = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    data = folder / "data"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **who}
    make = [bin / "initdb", "-D", data, "-U", "studio", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
    subprocess.run(make, check=True, **quiet)  # type: ignore[call-overload]
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c full_page_writes=off"

    def control(*words: str) -> None:
        subprocess.run([bin / "pg_ctl", "-D", data, "-w", "-o", options, *words], check=True, **quiet)  # type: ignore[call-overload]

    control("start")
    try:
        yield Server(folder, control)
    finally:
        control("-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def server_or_skip() -> Iterator[Server]:
    """The same, or a skip where there is no PostgreSQL or no driver for it."""
    if programs() is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip("no PostgreSQL here: install Debian's postgresql package and clearhead[postgresql]")
    with server() as running:
        yield running
