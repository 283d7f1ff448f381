"""Reset what a program must not inherit from the one before or from the worker: streams, random state, settings."""

import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

_SHARED = ("builtins", "math", "random", "torch", "torch.nn", "torch.nn.functional")
Kept = Sequence[tuple[Any, Mapping[str, Any]]]  # a module or a class, and what it held


def streams() -> None:
    """Open fresh text streams on descriptors 0, 1 and 2, so that none is shared with the worker."""
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def temporary_folder() -> None:
    """Make `tempfile` look at TMPDIR again: the worker's own temporary folder is not open to programs."""
    tempfile.tempdir = None


def breakpoints() -> None:
    """Make `breakpoint()` say why it cannot stop: a debugger would read end of file and raise an empty BdbQuit."""
    sys.breakpointhook = _refuse_to_stop


def _refuse_to_stop(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("breakpoint() cannot stop here: nobody can type into this program. Print values instead.")


def shuffle(salt: int) -> Callable[[], None]:
    """Seed all random generators from `salt`, so that two runs of a program that forgot its seed disagree.

    Returns a function that repeats the seeding, ten times as fast.
    """
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    random.seed(salt)
    again = [partial(random.setstate, random.getstate())]
    if numpy is not None:
        numpy.random.seed(salt)
        again.append(partial(numpy.random.set_state, numpy.random.get_state()))
    if torch is not None:
        torch.manual_seed(salt)
        again.append(partial(torch.set_rng_state, torch.get_rng_state()))

    def back() -> None:
        for value in again:
            value()

    return back


def settings() -> None:
    """Set torch's global settings as they are in a new process."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        torch.use_deterministic_algorithms(False)
        torch.set_printoptions(profile="default")


def shared() -> Kept:
    """Return the present content of the modules that programs share, and of torch's classes: see `altered`."""
    settings()  # reset first: some settings replace names in torch, such as torch.Storage
    modules = [sys.modules[name] for name in _SHARED if name in sys.modules]
    nn = vars(sys.modules["torch.nn"]).values() if "torch.nn" in sys.modules else ()
    classes = [value for value in nn if isinstance(value, type)]
    tensor = [sys.modules["torch"].Tensor] if "torch" in sys.modules else []
    return [(module, dict(vars(module))) for module in (*modules, *tensor, *classes)]


def altered(before: Kept) -> bool:
    """Whether anything was replaced or removed since, or is shadowed by an addition to a class.

    Other additions do not count: an import adds to modules, and transformers adds a method to torch's Module.
    """
    settings()
    gone = object()
    for owner, kept in before:
        now = vars(owner)
        if any(now.get(name, gone) is not value for name, value in kept.items()):
            return True
        added = now.keys() - kept.keys() if isinstance(owner, type) else ()
        if any(hasattr(base, name) for name in added for base in owner.__mro__[1:]):
            return True
    return False
