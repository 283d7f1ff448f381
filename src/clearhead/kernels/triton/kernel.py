"""Kernel "triton": our Triton kernels on GPUs. Triton is imported at the first computation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clearhead.kernels.capability import Capability
from clearhead.kernels.portable import torch_cuda
from clearhead.kernels.problem import Gradients, Problem, Result, memory_reason
from clearhead.kernels.triton.blocks import MOST_BYTES, is_interpreted

if TYPE_CHECKING:
    from clearhead.kernels.second_pass import Statistics, Wanted
    from clearhead.kernels.triton.statistics import Part

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Triton:
    """float32, bfloat16 and float16 on CUDA, with float32 sums: every field of an attention except a rule."""

    name = "triton"
    capabilities = Capability.FORWARD | Capability.GRADIENTS | Capability.STATISTICS
    devices: tuple[str, ...] = ("cuda",)
    has_targets = False

    def unavailable(self) -> str | None:
        return _unavailable()

    def describe(self) -> str:
        import triton

        where = "its interpreter, on the CPU" if is_interpreted() else torch.cuda.get_device_name()
        return f"Triton {triton.__version__} on {where}"

    def refuses(self, problem: Problem, capability: Capability = Capability.FORWARD) -> str | None:
        query, value = problem.query, problem.value
        if not (query.is_cpu if is_interpreted() else query.is_cuda):
            return f"it runs on {'the CPU' if is_interpreted() else 'CUDA'}, but the tensors are on {query.device}"
        if query.dtype not in DTYPES:
            return f"it does not support {query.dtype}"
        sizes = (*query.shape, *problem.key.shape, value.shape[-1])
        if 0 in sizes:
            return "an axis has size 0"
        tensors = (query, problem.key, value, *problem.attention.tensors().values())
        unreadable = memory_reason(*tensors)
        if unreadable is not None:
            return unreadable
        most = MOST_BYTES // query.element_size()
        if max(query.shape[-1], value.shape[-1]) > most:
            return f"it keeps a row in registers, so head_dim may be at most {most}"
        return None

    def forward(self, problem: Problem) -> Result:
        from clearhead.kernels.triton import launch
        from clearhead.kernels.triton.forward import RowStatistics

        return launch.forward(problem, RowStatistics(None, None, None, None))

    def takes_some_keys(self, problem: Problem) -> bool:
        return True

    def backward(self, problem: Problem, result: Result, grad_out: Tensor, grad_lse: Tensor | None) -> Gradients:
        from clearhead.kernels.triton import launch

        return launch.backward(problem, result, grad_out, grad_lse)

    def forward_with(self, problem: Problem, wanted: Wanted, statistics: Statistics) -> Result:
        from clearhead.kernels.triton import launch
        from clearhead.kernels.triton.forward import RowStatistics

        names = ("entropy", "maximum", "squares", "mass")
        numbers = RowStatistics(*(getattr(statistics, name) if getattr(wanted, name) else None for name in names))
        result = launch.forward(problem, numbers)
        if wanted.topk:  # the list and the output together need too many registers for one pass
            part = _part(range(problem.shape[2]), wanted)
            _row_statistics(problem, result.lse, part, statistics, names=())
        return result

    def statistics(
        self, problem: Problem, lse: Tensor, rows: range, keys: range, wanted: Wanted, statistics: Statistics
    ) -> None:
        from clearhead.kernels.triton import launch

        part = _part(rows, wanted)
        names = [name for name in _OF_ROWS if getattr(wanted, name)]
        if names or wanted.topk:
            _row_statistics(problem, lse, part, statistics, names)
        if wanted.received:
            statistics.received.add_(launch.column_sums(problem, lse, part))
        cells = wanted.cells
        if cells is not None and statistics.map.numel():
            sums = launch.map_cells(problem, lse, cells.rows, cells.keys, part, cells.by_maximum)
            join = torch.maximum if cells.by_maximum else torch.add
            join(statistics.map, sums, out=statistics.map)


_OF_ROWS = ("entropy", "maximum", "squares", "mass", "distance", "spread")


def _row_statistics(problem: Problem, lse: Tensor, part: Part, statistics: Statistics, names: Sequence[str]) -> None:
    """Write the named statistics of rows, and the largest weights if the part has a top-k."""
    from clearhead.kernels.triton import launch
    from clearhead.kernels.triton.statistics import RowOutputs

    lists = (statistics.best, statistics.best_keys) if part.top else (None, None)
    outputs = RowOutputs(*(getattr(statistics, name) if name in names else None for name in _OF_ROWS), *lists)
    launch.row_statistics(problem, lse, outputs, part)


def _part(rows: range, wanted: Wanted) -> Part:
    from clearhead.kernels.triton.statistics import Part

    return Part(rows.start, rows.stop, wanted.offset, wanted.topk)


def slower_than_torch(problem: Problem) -> str | None:
    """Return why torch is preferred for a problem that these kernels compute, in one line; None if it is not."""
    if is_interpreted():
        return "its interpreter is thousands of times slower"
    fused = torch_cuda.backend(problem)
    return None if fused is None else f"torch's {fused.name.lower().replace('_', ' ')} operator computes it"


@cache
def _unavailable() -> str | None:
    """Return why this machine cannot run the kernels; finds Triton without importing it."""
    if find_spec("triton") is None:
        return "Triton is not installed. Install it with pip install 'clearhead[gpu]'"
    return None if torch.cuda.is_available() or is_interpreted() else "there is no CUDA device"
