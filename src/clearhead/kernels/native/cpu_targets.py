"""The CPU targets of the native kernel: compiled copies of one source, and which of them computes a dtype here.

Each target carries its own row (native/arguments.h, `Row`); nothing here knows their names. The first of the table that
this CPU can run is used; `CLEARHEAD_KERNEL_TARGET=name` or `with kernels.target(name):` forces another.
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
        index: its place in the library's table, best first.
        name: how it is asked for.
        lanes: how many queries one tile of it holds.
        needs: the CPU features without which it crashes.
        dtypes: what it computes.
        flushes: the dtypes in whose products denormal numbers count as 0.
        for_tests: it is never chosen, only asked for by name.
        runs_here: whether this CPU has all it needs.
    """

    index: int
    name: str
    lanes: int
    needs: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    flushes: tuple[torch.dtype, ...]
    for_tests: bool
    runs_here: bool


def targets() -> list[Target]:
    """Every target in the native library, best first; an empty list where it was not built."""
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
    _named(name)
    token = forced.set(name)
    try:
        yield
    finally:
        forced.reset(token)


def current(dtype: torch.dtype = torch.float32) -> tuple[Target | None, str]:
    """The target that computes a dtype, and why in a few words; None where no target that may be used can.

    Raises:
        OptionError, KernelError: the environment variable or `target` forces one that cannot be had.
    """
    return chosen_for(forced.get(), dtype)


def index_of(dtype: torch.dtype) -> int:
    """The place in the library's table of the target that computes a dtype.

    Raises:
        KernelError: no target that may be used computes it.
    """
    chosen, why = chosen_for(forced.get(), dtype)
    if chosen is None:
        raise KernelError(f"the native kernel cannot compute this: {why}.")
    return chosen.index


def has_tiles(name: str) -> bool:
    """Whether a target multiplies on the tile registers of Intel AMX, or on their model.

    >>> has_tiles("generic")
    False
    """
    return name.startswith("amx")


def is_forced() -> bool:
    """Whether the program or the environment forces a target."""
    return forced.get() is not None or bool(_forced_by_environment())


def forget() -> None:
    """Read `CLEARHEAD_KERNEL_TARGET` again at the next call. It is read once, for a look-up there takes 1 µs."""
    _forced_by_environment.cache_clear()
    chosen_for.cache_clear()


@cache
def _forced_by_environment() -> str | None:
    return os.environ.get(VARIABLE)


@cache
def chosen_for(forced_here: str | None, dtype: torch.dtype) -> tuple[Target | None, str]:
    name, why = forced_here, "forced by kernels.target"
    if not name:
        name, why = _forced_by_environment(), f"forced by {VARIABLE}"
    if name:
        only = _named(name)
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
    """Whether a later target computes a dtype faster on this CPU.

    vdpbf16ps runs at half the rate of a float32 multiply-add on Intel and at twice that rate on AMD: on an Intel Xeon
    bfloat16 reaches 264 GF/s converted to float32 and 183 GF/s by vdpbf16ps.
    """
    by_pairs = "avx512bf16" in candidate.needs and "amx-bf16" not in candidate.needs
    return dtype is torch.bfloat16 and by_pairs and "intel" in cpu_features()


def _named(name: str) -> Target:
    for candidate in _TARGETS:
        if candidate.name == name:
            if not candidate.runs_here:
                able = ", ".join(t.name for t in _TARGETS if t.runs_here)
                raise KernelError(f"this CPU cannot run kernel target {name!r}. It can run: {able}.")
            return candidate
    known = ", ".join(t.name for t in _TARGETS) or "none, because the native library was not built"
    raise OptionError(f"there is no kernel target {name!r}. Compiled are: {known}. Unset {VARIABLE} for the best one.")
