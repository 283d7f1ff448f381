"""An AttentionMatrix on the device of `--device`, and on meta, which stands in for devices that are not available.

On meta, mixing devices is an error, and so is reading a number, which on a GPU would synchronise.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from clearhead import AttentionMatrix
from devices import device  # noqa: F401


class NoFloat64(TorchDispatchMode):
    """Refuses a float64 tensor outside the CPU, as MPS does."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor) and tensor.dtype is torch.float64 and not tensor.is_cpu:
                raise RuntimeError(f"{function} made a float64 tensor on {tensor.device}")
        return made


def matrix(on: torch.device | str, kind: str) -> AttentionMatrix:
    make = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, heads, n, 7, generator=make).to(on) for heads, n in ((4, 23), (2, 31)))
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "causal": {"is_causal": True},
        "mask, cap, sinks": {"allow": torch.ones(23, 31, dtype=torch.bool, device=on).tril(5), "softcap": 2.0,
                             "sinks": torch.ones(4, device=on)},
        "alibi, window": {"alibi": torch.ones(4, device=on), "reach": (-5, 3)},
    }  # fmt: skip
    return AttentionMatrix(query, key, **options[kind])


QUESTIONS: dict[str, Callable[[AttentionMatrix], Any]] = {
    "entropy": lambda A: A.entropy(),
    "received": lambda A: A.received(),
    "topk": lambda A: A.topk(3)[0],
    "pooled": lambda A: A.pooled(4, 5),
    "mean_distance": lambda A: A.mean_distance(),
    "survey": lambda A: A.survey(k=3, cells=(4, 5)).entropy,
    "A @ X": lambda A: A @ torch.ones(2, 4, 31, 3, device=A.device),
    "A.mT @ Y": lambda A: A.mT @ torch.ones(2, 4, 23, 3, device=A.device),
}
KINDS = ["plain", "causal", "mask, cap, sinks", "alibi, window"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_statistic_stays_on_its_device_reads_no_number_and_needs_no_float64(question: str, kind: str) -> None:
    with NoFloat64():
        answer = QUESTIONS[question](matrix("meta", kind))
    assert answer.device.type == "meta"
    assert answer.shape == QUESTIONS[question](matrix("cpu", kind)).shape


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_statistic_on_the_chosen_device_equals_the_cpu(device: torch.device, question: str, kind: str) -> None:  # noqa: F811
    there, here = (QUESTIONS[question](matrix(on, kind)) for on in (device, "cpu"))
    assert there.device.type == device.type
    torch.testing.assert_close(there.cpu(), here, rtol=2e-5, atol=2e-5)
