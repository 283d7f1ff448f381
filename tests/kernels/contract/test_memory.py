"""No kernel allocates an L×S tensor, measured by the peak memory of the process."""

from typing import Any

import pytest
import torch

from clearhead import kernels
from clearhead.kernels import Problem
from clearhead.kernels.registry import KERNELS
from highwater import taken


# A computation that stored one matrix of weights would take 1 more. What malloc keeps of smaller blocks differs from
# run to run by up to 0.13 (18 MB), so the bounds lie half way.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "length", "options", "matrices"),
    [
        ("native", 6_007, {"is_causal": True}, 0.5),
        ("native", 6_007, {"reach": (-300, 0), "softcap": 5.0}, 0.5),
        ("native", 6_007, {"alibi": torch.tensor([0.1], requires_grad=True)}, 0.5),
        ("torch", 6_007, {"is_causal": True}, 0.5),
        # Blockwise torch; a dense computation would hold more than five matrices at a time.
        ("torch", 6_007, {"reach": (-300, 0), "softcap": 5.0}, 1.5),
    ],
)
def test_forward_and_backward_are_linear_in_length(
    kernel: str, length: int, options: dict[str, Any], matrices: float
) -> None:
    assert memory_of(kernel, length, **options) < matrices


def test_a_learned_bias_takes_the_memory_of_its_gradient() -> None:
    length = 6_007
    assert memory_of("native", length, bias=torch.zeros(length, length, requires_grad=True)) < 1.5


def memory_of(kernel: str, length: int, **options: Any) -> float:
    """Return the memory of forward and backward, in L×S float32 matrices."""
    query = torch.randn(1, 1, length, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    problem = Problem(query, query, query, scale=0.5, **options)
    reason = KERNELS[kernel].unavailable()
    if reason:
        pytest.skip(reason)
    return taken(lambda: kernels.run(problem, kernel=kernel).out.sum().backward()) / (4 * length * length)
