"""CPU targets of the native kernel: compiled copies of one source, and the choice of one for a dtype.

Each target describes itself (native/arguments.h, `Row`). The first target in the table that this CPU can run is used;
`CLEARHEAD_KERNEL_TARGET=name` or `with kernels.target(name):` forces another.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from clearhead.errors import KernelError, OptionError
from clearhead.kernels.native.library import cpu_features, cpu_supports, library

VARIABLE = "CLEARHEAD_KERNEL_TARGET"
# The target that `target` forces in this thread or task.
forced: ContextVar[str | None] = ContextVar("clearhead kernel target", default=None)


@dataclass(frozen=True, slots=True)
class Target:
    """One compiled copy of the native kernels.

    Attributes:
        index: its index in the library's table, best first.
        name: the name by which callers select it.
        lanes: how many queries one of its tiles holds.
        needs: the CPU features it requires.
        dtypes: the dtypes it computes.
        flushes: the dtypes whose products flush denormal numbers to 0.
        for_tests: it is never chosen automatically, only by name.
        runs_here: whether this CPU has all required features.
    """

    index: int
    name: str
    lanes: int
    needs: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    flushes: tuple[torch.dtype, ...]
    for_tests: bool
    runs_here: bool


_BY_PROGRAM, _BY_ENVIRONMENT = "forced by kernels.target", f"forced by {VARIABLE}"
_REMEDIES = {_BY_PROGRAM: "Pass one of these names.", _BY_ENVIRONMENT: f"Unset {VARIABLE} for the best one."}


def targets() -> list[Target]:
    """Return every target of the native library, best first; an empty list if the library was not built."""
    return list(_TARGETS)


def _read(index: int, row: dict[str, Any]) -> Target:
    needs, dtypes, flushes = (tuple(filter(None, row[name].split(","))) for name in ("needs", "dtypes", "flushes"))
    return Target(
        index=index,
        name=row["name"],
        lanes=row["lanes"],
        needs=needs,
        dtypes=tuple(getattr(torch, name) for name in dtypes),
        flushes=tuple(getattr(torch, name) for name in flushes),
        for_tests=row["for_tests"],
        runs_here=cpu_supports(row["needs"]),
    )


_TARGETS = [] if library is None else [_read(index, row) for index, row in enumerate(library.targets())]


@contextmanager
def target(name: str) -> Iterator[None]:
    """Force the native kernel to one CPU target inside a `with` block, in this thread or task.

    Raises:
        OptionError: no such target was compiled.
        KernelError: this CPU cannot run it.
    """
    _named(name, _BY_PROGRAM)
    library.expect_forced_targets()
    token = forced.set(name)
    try:
        yield
    finally:
        forced.reset(token)


def current(dtype: torch.dtype = torch.float32) -> tuple[Target | None, str]:
    """Return the target that computes a dtype, and why in a few words; None if no usable target can.

    Raises:
        OptionError, KernelError: the environment variable or `target` forces an unavailable one.
    """
    return chosen_for(forced.get(), dtype)


def index_of(dtype: torch.dtype) -> int:
    """Return the index, in the library's table, of the target that computes a dtype.

    Raises:
        KernelError: no usable target computes it.
    """
    chosen, why = chosen_for(forced.get(), dtype)
    if chosen is None:
        raise KernelError(f"the native kernel cannot compute this: {why}.")
    return chosen.index


def has_tiles(name: str) -> bool:
    """Return whether a target multiplies on Intel AMX tile registers, or on an emulation of them.

    >>> has_tiles("generic")
    False
    """
    return name.startswith("amx")


def is_forced() -> bool:
    """Return whether the program or the environment forces a target."""
    return forced.get() is not None or bool(_forced_by_environment())


def forget() -> None:
    """Read `CLEARHEAD_KERNEL_TARGET` again at the next call. It is cached, because a look-up takes 1 µs."""
    _forced_by_environment.cache_clear()
    chosen_for.cache_clear()
    if library is not None and is_forced():
        library.expect_forced_targets()


@cache
def _forced_by_environment() -> str | None:
    return os.environ.get(VARIABLE)


@cache
def chosen_for(forced_here: str | None, dtype: torch.dtype) -> tuple[Target | None, str]:
    name, why = forced_here, _BY_PROGRAM
    if not name:
        name, why = _forced_by_environment(), _BY_ENVIRONMENT
    if name:
        only = _named(name, why)
        return (only, why) if dtype in only.dtypes else (None, f"target {name}, {why}, has no {dtype}")
    for candidate in _TARGETS:
        if (
            candidate.runs_here
            and not candidate.for_tests
            and dtype in candidate.dtypes
            and not _is_slow(candidate, dtype)
        ):
            return candidate, "the best this CPU can run"
    return None, f"no target that this CPU can run has {dtype}"


def _is_slow(candidate: Target, dtype: torch.dtype) -> bool:
    """Return whether a later target computes a dtype faster on this CPU.

    vdpbf16ps runs at half the rate of a float32 multiply-add on Intel and at twice that rate on AMD: on an Intel Xeon
    bfloat16 reaches 264 GF/s converted to float32 and 183 GF/s by vdpbf16ps.
    """
    by_pairs = "avx512bf16" in candidate.needs and "amx-bf16" not in candidate.needs
    return dtype is torch.bfloat16 and by_pairs and "intel" in cpu_features()


def _named(name: str, why: str) -> Target:
    """Return the target of a name; `why` says who forces it."""
    usable = ", ".join(t.name for t in _TARGETS if t.runs_here) or "none, because the native library was not built"
    remedy = f"This CPU can run: {usable}. {_REMEDIES[why]}"
    named = next((candidate for candidate in _TARGETS if candidate.name == name), None)
    if named is None:
        raise OptionError(f"there is no kernel target {name!r}, {why}. {remedy}")
    if not named.runs_here:
        raise KernelError(f"this CPU cannot run kernel target {name!r}, {why}. {remedy}")
    return named
