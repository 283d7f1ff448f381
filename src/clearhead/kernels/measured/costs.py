"""Where torch's own function is faster than our kernel, and by how much: from measured costs, or a rule of the CPU.

A cost is what a call takes, each head of it and each million multiply-adds. Those of this machine, which `clearhead
tune` measures (tuning.py), come first, then those of CPUs with the same instructions (cpu_classes.py). The native
library looks them up, in a table that is made here (native/binding/costs.h).
"""

import math
from functools import cache
from typing import Any, NamedTuple

import torch

from clearhead.kernels.measured import cpu_classes, figures
from clearhead.kernels.measured.tasks import CALLS, Cost, share, task_of
from clearhead.kernels.native.call import DTYPES
from clearhead.kernels.native.cpu_targets import Target, current, forced, is_forced
from clearhead.kernels.native.library import cpu_family, cpu_features, library
from clearhead.kernels.portable.torch_sdpa import flash_runs

# Torch's kernel is used if it is faster by more than two measurements differ (the factor MARGIN) and by more than the
# lookup takes (LOOK microseconds: 3 to 5 between two backward passes of 8 heads of 1 to 16 tokens, two cores of an
# Emerald Rapids Xeon).
MARGIN = 1.03
LOOK = 4.0
# What describing a call costs, in microseconds: where the fast path has only our kernel, torch's must save more.
DESCRIBING = 50.0


class Known(NamedTuple):
    """What a task costs in a dtype on our kernel and on torch's, and how that is known."""

    ours: Cost
    torchs: Cost
    source: str


# What torch saves where nothing was measured: always something if ours does not use its matrix instructions.
ALWAYS, UNKNOWN = math.inf, -math.inf


def torch_saves(dtype: torch.dtype, learns: bool, shape: tuple[int, ...], keys: int, threads: int) -> float | None:
    """Return the microseconds that torch's function saves over our kernel for a query of a shape.

    Negative where ours is faster, -inf where no costs are known, and None if no CPU target has the dtype.
    """
    if library is None or dtype not in DTYPES:
        return None
    *outer, queries, width = shape
    saved: float | None = table().saved(DTYPES[dtype], learns, math.prod(outer), queries, keys, width, threads)
    return saved


def table() -> Any:
    """The library's `CostTable` of what torch's function saves. A target that is forced is never passed over.

    Raises:
        OptionError, KernelError: the environment variable or `kernels.target` forces a target that cannot be had.
    """
    return table_of(forced.get())


@cache
def table_of(_forced: str | None) -> Any:
    computed = [dtype for dtype in DTYPES if current(dtype)[0] is not None]
    tasks = [] if is_forced() else [task for dtype in computed if flash_runs(dtype) for task in _saved(dtype)]
    return library.CostTable([DTYPES[dtype] for dtype in computed], tasks, DESCRIBING)


if library is not None:
    library.register_costs(table_of, forced)


def _saved(dtype: torch.dtype) -> list[tuple[float, ...]]:
    """Return each task in a dtype as `CostTable` takes it: dtype, bounds, and what torch's function saves.

    >>> len(_saved(torch.float32)) == len(CALLS)
    True
    """
    return [(DTYPES[dtype], *bounds, *_saving(of(task, dtype), dtype)) for task, *bounds in CALLS]


def _saving(known: Known | None, dtype: torch.dtype) -> tuple[float, float, float]:
    """Return the microseconds that torch's function saves: per call, per head, per million multiply-adds."""
    if known is None:
        return ALWAYS if torch_has_more(dtype) else UNKNOWN, 0.0, 0.0
    call, head, work = (ours - MARGIN * torchs for ours, torchs in zip(known.ours, known.torchs, strict=True))
    return call - LOOK, head, work


def why(dtype: torch.dtype, learns: bool, shape: tuple[int, ...], keys: int, threads: int) -> str:
    """Return why torch's function is faster for such a call, in one line."""
    *outer, queries, width = shape
    known = of(task_of(queries, keys, learns), dtype)
    if known is None:
        return torch_has_more(dtype) or "torch is faster"
    part = share(math.prod(outer), queries, keys, width, threads)
    ours, torchs = known.ours.at(*part), known.torchs.at(*part)
    return f"torch is faster at this size, about {torchs:.0f} µs where ours takes {ours:.0f}, {known.source}"


def forget() -> None:
    """Read the measured figures again at the next call."""
    figures.load.cache_clear()
    _of.cache_clear()
    table_of.cache_clear()
    if library is not None:
        library.forget_costs()


def of(task: str, dtype: torch.dtype) -> Known | None:
    """Return the costs of a task in a dtype, by `clearhead tune` here or of a CPU of its class; None if unknown."""
    return _of(task, dtype, forced.get())


@cache
def _of(task: str, dtype: torch.dtype, _forced: str | None) -> Known | None:
    lines = figures.load().costs.get((task, dtype))
    if lines is not None:
        return Known(*lines, "as `clearhead tune` measured on this machine")
    target, _ = current(dtype)
    if is_forced() or target is None:
        return None
    for each in cpu_classes.of(target, cpu_features(), cpu_family()):
        lines = each.costs.get((task, dtype))
        if lines is not None:
            return Known(*lines, f"as measured on {each.name}")
    return None


def source() -> str:
    """Return where the costs in use come from, in one line."""
    if figures.load().costs:
        return f"{figures.load().path}"
    target, _ = current()
    classes = [] if target is None else cpu_classes.of(target, cpu_features(), cpu_family())
    known = f"those of {classes[0].name}" if classes else "none, so our kernel is used wherever it can run"
    return f"{known} ({figures.load().reason})"


# Instructions that multiply matrices of a dtype. A target that needs them has kernels of its own for it; against one
# that does not, torch is 3 to 4 times as fast (bfloat16 on a Xeon with AMX: bench/LOG.md).
MATRIX_INSTRUCTIONS = {torch.bfloat16: "amx-bf16"}


def torch_has_more(dtype: torch.dtype) -> str | None:
    """Which instructions of this CPU torch uses for a dtype and our target does not, in one line; None if none."""
    target, _ = current(dtype)
    return None if target is None else _torch_has_more(target, dtype)


def _torch_has_more(target: Target, dtype: torch.dtype) -> str | None:
    feature = MATRIX_INSTRUCTIONS.get(dtype)
    if feature is None or feature not in cpu_features() or feature in target.needs:
        return None
    return f"torch multiplies {str(dtype)[6:]} by this CPU's {feature}, which target {target.name} does not use"
