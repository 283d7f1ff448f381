"""Confine this process irrevocably: no files, network, processes or privileges beyond what a computation needs."""

import ctypes
import math
import os
import resource
import struct
from collections.abc import Sequence
from pathlib import Path

from clearhead.sandbox.confinement import landlock, seccomp
from clearhead.sandbox.confinement.grants import readable
from clearhead.sandbox.limits import MIB, THREAD, Limits

_CAPABILITY_VERSION_3 = 0x20080522
_PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _CLEAR_ALL = 24, 47, 4
# Address space without memory behind it: allocator arenas, guard pages, mapped libraries, of which
# torch's CUDA build has 2.5 GiB. What is written to is bounded by RLIMIT_DATA, and by `watch` where it is shared.
_SLACK = 4096 * MIB


def confine(limits: Limits, folder: Path | None, *, files: bool = True, private: Sequence[Path] = ()) -> None:
    """Confine this process. `folder` may be written to. `files=False` if an outer back end already hides files.

    `private` may not be read, nor what `grants` never grants.

    Raises OSError if the kernel refuses; the caller must then not run the program.
    """
    _resources(limits)
    paths = readable(private) if files else []
    _drop_capabilities()
    if files:
        landlock.restrict(paths, [folder] if folder and limits.disk else [])
    seccomp.restrict()


def _resources(limits: Limits) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(limits.seconds + used.ru_utime + used.ru_stime)
    mapped, data = _mapped()
    for name, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, mapped + limits.memory + _SLACK),
        (resource.RLIMIT_DATA, data + limits.memory),
        (resource.RLIMIT_FSIZE, limits.disk),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        *([(resource.RLIMIT_NPROC, limits.memory // THREAD)] if _is_alone() else []),
    ):
        hard = resource.getrlimit(name)[1]
        top = value + (name == resource.RLIMIT_CPU)  # SIGXCPU arrives a second before SIGKILL, and tells the cause
        top = top if hard == resource.RLIM_INFINITY else min(top, hard)
        resource.setrlimit(name, (min(value, top), top))


def _is_alone() -> bool:
    """Return whether this process is in a user namespace for one user, where RLIMIT_NPROC counts only its threads.

    Elsewhere the kernel counts all threads of the user, and none of root or of root outside; `watch` counts those.
    """
    rows = Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()
    return len(rows) == 1 and rows[0].split()[2] == "1"


def _mapped() -> tuple[int, int]:
    """Return the bytes of address space, and of private writable data, that this process maps already."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    page = os.sysconf("SC_PAGE_SIZE")
    return int(fields[0]) * page, int(fields[5]) * page


def _drop_capabilities() -> None:
    """Drop all capabilities. Root without capabilities still owns root's files, but has no other right of root."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    if libc.capset(header, struct.pack("6I", *[0] * 6)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"capset: {os.strerror(code)}")
