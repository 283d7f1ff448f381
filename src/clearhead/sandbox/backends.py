"""Choose the back end that confines programs on this machine.

Without a back end nothing runs, until the person at this machine consents to run packs and their own code unconfined
(`consent`). A studio that other people use must not rely on this consent: it refuses to start.
"""

import os
from collections.abc import Sequence

from clearhead.errors import SandboxError
from clearhead.sandbox.confinement import landlock, seccomp, tmpfs
from clearhead.sandbox.limits import MIB, Backend
from clearhead.sandbox.processes import bubblewrap, gate, pool
from clearhead.sandbox.processes.bubblewrap import Cold
from clearhead.sandbox.processes.pool import Worker

_consented = False
UNCONFINED = Backend("unconfined", True, "programs run as you, with a limit of time only; you agreed to that")


def available() -> tuple[Backend, ...]:
    """Return the back ends that work on this machine, best first."""
    offered = []
    if seccomp.supported() and landlock.abi() >= landlock.OLDEST:
        about = f"Landlock ABI {landlock.abi()} and a system call filter, without root"
        offered.append(Backend("landlock", True, about))
    if bubblewrap.works():
        offered.append(Backend("bubblewrap", False, "namespaces and a system call filter; each program starts cold"))
    return tuple(offered)


def backend() -> Backend | None:
    """Return the back end in use; None if there is none and the user has not consented to run without one."""
    return next(iter(available()), UNCONFINED if _consented else None)


def consent() -> None:
    """Record the user's consent to run programs unconfined if this machine has no back end, until this process ends."""
    global _consented
    _consented = True


def must_confine() -> None:
    """Raise an error if programs cannot be confined. For services that others use, where consent does not count.

    Raises:
        SandboxError: this machine has no back end.
    """
    if not available():
        raise SandboxError(
            f"programs cannot be confined here ({explain()}), so other people's are not run. Use a machine where "
            "`clearhead doctor` names a back end, or serve this machine alone."
        )


def explain() -> str:
    """Return a line for `clearhead doctor` about the back end."""
    best = next(iter(available()), None)
    if best:
        return f"{best.name}: {best.about}"
    refused = bubblewrap.unusable()
    why = f"; {refused}" if refused else ""
    return f"none: needs Linux 6.2 or later with Landlock switched on (x86-64 or arm64), or bubblewrap{why}"


def guarantees() -> dict[str, str]:
    """Return what bounds a program here, by resource, for `clearhead doctor`; empty if nothing is confined."""
    best = next(iter(available()), None)
    if best is None:
        return {}
    version, warm = landlock.abi(), best.name == "landlock"
    files = f"Landlock ABI {version}" if warm else "a root of its own that holds nothing else (mount namespace)"
    network = "Landlock (TCP) and the" if warm and version >= 4 else "the" if warm else "a network namespace and the"
    signals = "Landlock scopes and the" if warm and version >= 6 else "the" if warm else "a process namespace and the"
    later = "; Landlock scopes them from Linux 6.12 on" if warm and version < 6 else ""
    programs, memory = gate.current().programs, gate.current().memory
    return {
        "files": files,
        "network": f"{network} system call filter",
        "signals": f"{signals} system call filter{later}",
        "disk": _DISK[tmpfs.offered() if warm else bubblewrap.limits_tmpfs()],
        "user": _USER[os.geteuid() == 0, warm],
        "all programs": f"{programs} at once, {memory / 1024 / MIB:.1f} GiB of memory together, in each process",
    }


_DISK = {
    True: "a tmpfs of limited size, which the kernel keeps",
    False: "an ordinary folder, counted every 20 ms, and RLIMIT_FSIZE for each file: no user namespaces here",
}
_USER = {
    (False, True): "yours, without capabilities",
    (False, False): "yours, in a user namespace, without capabilities",
    (True, True): "root's files and no capability of root's, in a user namespace: run clearhead as an ordinary user",
    (True, False): f"user {tmpfs.NOBODY}, without capabilities",
}


def starter(preload: Sequence[str], salt: int, name: str | None = None) -> tuple["Worker | Cold", bool]:
    """Return a starter for programs, and whether it confines them.

    Args:
        name: a back end by name; None is the best.
    Raises:
        SandboxError: there is no back end, or none of this name.
    """
    chosen = next((offered for offered in available() if offered.name == name), None) if name else backend()
    if chosen is None:
        why = bubblewrap.unusable() if name == "bubblewrap" else None
        wanted = (
            f"no back end {name!r} here{f' ({why})' if why else ''}" if name else f"no confinement here ({explain()})"
        )
        raise SandboxError(f"{wanted}; no program of a pack or learner is run")
    if chosen.name == "bubblewrap":
        return Cold(preload, salt), True
    return pool.worker(preload, salt), chosen.name != UNCONFINED.name
