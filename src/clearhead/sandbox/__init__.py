"""Run code that is not ours, confined: no network, no files but its own, bounded time, memory, output."""

from collections.abc import Sequence

from clearhead.errors import SandboxError
from clearhead.sandbox import landlock, pool, seccomp
from clearhead.sandbox.limits import MIB, Backend, Chunk, Limits, Outcome, Raised

DEFAULT = Limits()

__all__ = ["DEFAULT", "MIB", "Backend", "Chunk", "Limits", "Outcome", "Raised", "backend", "explain", "run"]


def backend() -> Backend | None:
    """The way this machine confines programs, or None if it has none."""
    if seccomp.supported() and landlock.abi() >= landlock.OLDEST:
        return Backend("landlock", True, f"Landlock ABI {landlock.abi()} and a system call filter, without root")
    return None


def explain() -> str:
    """One line for `clearhead doctor`."""
    found = backend()
    if found:
        return f"{found.name}: {found.about}"
    return "none: needs Linux 6.2 or later with Landlock switched on (x86-64 or arm64)"


def run(
    source: str | Sequence[Chunk],
    *,
    files: Sequence[tuple[str, bytes]] = (),
    limits: Limits = DEFAULT,
    stdin: str = "",
    want: Sequence[tuple[str, str]] = (),
    preload: Sequence[str] = (),
    salt: int = 1,
) -> Outcome:
    """Run a program in a confined process of its own and wait for it.

    Args:
        source: Python, or chunks that run one after another in one namespace.
        files: (name, content) put into its empty folder, which is also its working folder.
        want: (name, format spec) of variables to bring back as text, in `Outcome.values`.
        preload: modules the warm worker has imported already: a torch program starts in milliseconds, not seconds.
        salt: seeds whatever the program does not seed, and Python's hashes; two salts, two runs that must agree.
    Returns:
        Outcome. A program that fails, or is stopped, is an outcome, not an exception.
    Raises:
        SandboxError: this machine cannot confine, or the worker does not start.

    >>> run("print(6 * 7)").stdout
    '42\\n'
    >>> run("import socket; socket.socket()").raised.type
    'PermissionError'
    """
    if backend() is None:
        raise SandboxError(f"no confinement is to be had here ({explain()}); no program of a pack or learner is run")
    chunks = [Chunk(source)] if isinstance(source, str) else list(source)
    running = pool.Running(chunks, limits=limits, stdin=stdin, files=files, want=want, salt=salt)
    running.launch(pool.worker(preload, salt))
    return running.finish()
