"""No kernel allocates an L×S tensor: the process's own high-water mark says so."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from clearhead import kernels
from clearhead.kernels import Problem
from clearhead.kernels.choice import KERNELS

CLEAR = Path("/proc/self/clear_refs")


def high_water() -> int:
    """The most resident memory since it was last reset, in bytes."""
    line = next(text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize(
    ("kernel", "length", "options", "matrices"),
    [
        ("native", 12_007, {"is_causal": True}, 0.05),
        ("native", 12_007, {"reach": (-300, 0), "softcap": 5.0}, 0.05),
        ("native", 12_007, {"alibi": torch.tensor([0.1], requires_grad=True)}, 0.05),
        ("torch", 12_007, {"is_causal": True}, 0.5),
        # Plain blocked torch; a dense one would hold more than five matrices at a time.
        ("torch", 6_007, {"reach": (-300, 0), "softcap": 5.0}, 1.5),
    ],
)
def test_forward_and_backward_are_linear_in_length(
    kernel: str, length: int, options: dict[str, Any], matrices: float
) -> None:
    """The room taken, in L×S float32 matrices."""
    query = torch.randn(1, 1, length, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    problem = Problem(query, query, query, scale=0.5, **options)
    assert_room(kernel, problem, matrices)


def test_a_learned_bias_takes_the_room_of_its_gradient() -> None:
    length = 6_007
    query = torch.randn(1, 1, length, 2, generator=torch.Generator().manual_seed(0))
    bias = torch.zeros(length, length, requires_grad=True)
    assert_room("native", Problem(query, query, query, scale=0.5, bias=bias), 1.1)


def assert_room(kernel: str, problem: Problem, matrices: float) -> None:
    """Forward and backward take less than so many L×S float32 matrices."""
    length = problem.query.shape[2]
    why_not = KERNELS[kernel].unavailable()
    if why_not:
        pytest.skip(why_not)
    try:
        CLEAR.write_text("5")
    except OSError:
        pytest.skip("this kernel does not let the high-water mark be reset")
    before = high_water()
    kernels.run(problem, kernel=kernel).out.sum().backward()
    assert high_water() - before < matrices * 4 * length * length
