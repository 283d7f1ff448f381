"""Which way of confining this machine offers, and what holds where it offers none.

Without one, nothing is run until the person at this machine consents to running packs and their own code unconfined
(`consent`). A studio that other people use must not take that consent: it refuses to start.
"""

from collections.abc import Sequence

from clearhead.errors import SandboxError
from clearhead.sandbox import bubblewrap, landlock, pool, seccomp
from clearhead.sandbox.bubblewrap import Cold
from clearhead.sandbox.limits import Backend
from clearhead.sandbox.pool import Worker

_consented = False
UNCONFINED = Backend("unconfined", True, "programs run as you, with a limit of time only; you agreed to that")


def available() -> tuple[Backend, ...]:
    """The ways this machine can confine, best first."""
    found = []
    if seccomp.supported() and landlock.abi() >= landlock.OLDEST:
        about = f"Landlock ABI {landlock.abi()} and a system call filter, without root"
        found.append(Backend("landlock", True, about))
    if bubblewrap.works():
        found.append(Backend("bubblewrap", False, "namespaces and a system call filter; each program starts cold"))
    return tuple(found)


def backend() -> Backend | None:
    """The way programs are confined here; None if there is none and nobody has consented to go without."""
    return next(iter(available()), UNCONFINED if _consented else None)


def consent() -> None:
    """The person at this machine agrees to run programs unconfined, where they cannot be confined, until it ends."""
    global _consented
    _consented = True


def must_confine() -> None:
    """For a program that other people use: their code is not theirs alone to risk, so consent does not count.

    Raises:
        SandboxError: this machine cannot confine.
    """
    if not available():
        raise SandboxError(
            f"programs cannot be confined here ({explain()}), so other people's are not run. Use a machine where "
            "`clearhead doctor` names a back end, or serve this machine alone."
        )


def explain() -> str:
    """One line for `clearhead doctor`."""
    found = next(iter(available()), None)
    if found:
        return f"{found.name}: {found.about}"
    return "none: needs Linux 6.2 or later with Landlock switched on (x86-64 or arm64), or bubblewrap"


def starter(preload: Sequence[str], salt: int, name: str | None = None) -> tuple["Worker | Cold", bool]:
    """What starts a program, and whether it is confined.

    Args:
        name: a back end by name; None is the best.
    Raises:
        SandboxError: there is none, or not this one.
    """
    chosen = next((one for one in available() if one.name == name), None) if name else backend()
    if chosen is None:
        wanted = f"no back end {name!r} here" if name else f"no confinement is to be had here ({explain()})"
        raise SandboxError(f"{wanted}; no program of a pack or learner is run")
    if chosen.name == "bubblewrap":
        return Cold(preload, salt), True
    return pool.worker(preload, salt), chosen.name != UNCONFINED.name
