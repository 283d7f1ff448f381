"""Every kernel, on every CPU target, as test parameters."""

import pytest
from torch import Tensor

from clearhead import kernels
from clearhead.kernels import Problem
from clearhead.kernels.registry import KERNELS
from devices import placed

from .targets import on

# Every kernel; the native one once per CPU target. Triton's interpreter takes seconds per test, so test_triton.py has a
# sample of its cases.
IMPLEMENTATIONS = [
    *(name for name in KERNELS if name not in ("native", "triton")),
    *(on(t, "native-") for t in kernels.targets()),
    pytest.param("triton", marks=pytest.mark.stress),
]


def refuses(kernel: str, problem: Problem) -> str | None:
    return KERNELS[kernel].unavailable() or KERNELS[kernel].refuses(placed(problem))


def skip_if_refused(kernel: str, problem: Problem) -> None:
    if reason := refuses(kernel, problem):
        pytest.skip(f"the {kernel} kernel refuses this problem: {reason}")


def runner(kernel: str):
    def compute(problem: Problem) -> tuple[Tensor, Tensor]:
        result = kernels.run(placed(problem), kernel=kernel)
        return result.out.cpu(), result.lse.cpu()

    return compute
