"""explain has the arguments and errors of attention; the frames of a plain call; torch with restricted instructions."""

import inspect
import os
import subprocess
import sys
from typing import Any

import numpy
import pytest
import torch

import clearhead
from clearhead import kernels
from clearhead.errors import DtypeError, KernelError, OptionError, ShapeError


def test_explain_raises_the_errors_of_attention() -> None:
    query, key, value = torch.randn(3, 1, 2, 5, 7)
    for wrong, error in (
        ({"kernel": "abacus"}, KernelError),
        ({"attn_mask": torch.ones(3, 4, dtype=torch.bool)}, ShapeError),
        ({"softcap": "30"}, DtypeError),
        ({"softcap": 10**400}, OptionError),
        ({"dropout_p": "0"}, OptionError),
    ):
        with pytest.raises(error) as by_explain:
            kernels.explain(query, key, value, **wrong)
        with pytest.raises(error) as by_attention:
            clearhead.attention(query, key, value, **wrong)
        assert str(by_explain.value) == str(by_attention.value)


def test_what_is_not_a_tensor_is_named() -> None:
    query = torch.randn(1, 2, 5, 7)
    for wrong in (None, 1, [[1.0]], numpy.ones((1, 2, 5, 7))):
        for function in (kernels.explain, clearhead.attention):
            with pytest.raises(DtypeError, match=f"value is a {type(wrong).__name__}, expected a torch.Tensor"):
                function(query, query, wrong)


@pytest.mark.parametrize(
    "options",
    [
        {"scale": numpy.float32(0.5)},
        {"scale": numpy.int64(2)},
        {"scale": torch.tensor(0.5)},
        {"dropout_p": numpy.float32(0)},
        {"dropout_p": torch.tensor(0.0)},
        {"softcap": numpy.float32(3)},
        {"softcap": torch.tensor(3.0)},
    ],
    ids=lambda options: "-".join(f"{name}-{type(value).__name__}" for name, value in options.items()),
)
def test_numbers_may_be_numpys_or_tensors_without_axes(options: dict[str, Any]) -> None:
    query, key, value = torch.randn(3, 1, 2, 5, 7)
    plain = {name: float(number) for name, number in options.items()}
    assert torch.equal(
        clearhead.attention(query, key, value, **options), clearhead.attention(query, key, value, **plain)
    )
    assert kernels.explain(query, key, value, **options).kernel is not None


def test_return_lse_is_any_truth() -> None:
    query = torch.randn(1, 2, 5, 7)
    for truth in (True, False, 1, None):
        assert kernels.explain(query, query, query, return_lse=truth) == kernels.explain(
            query, query, query, return_lse=bool(truth)
        )


def test_explain_has_the_arguments_of_attention() -> None:
    ours, its = (inspect.signature(f).parameters for f in (kernels.explain, clearhead.attention))
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [(p.name, p.kind, p.default) for p in its.values()]


def test_a_plain_call_enters_at_most_six_frames() -> None:
    """docs/design.md lists the frames."""
    query, key, value = torch.randn(3, 1, 8, 1, 64)
    with torch.no_grad():
        entered = frames(lambda: clearhead.attention(query, key, value))
    assert len(entered) <= 6, entered


def frames(call: Any) -> list[str]:
    for _ in range(3):
        call()
    entered: list[str] = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, arg: entered.append(frame.f_code.co_name) if event == "call" else None)
    try:
        call()
    finally:
        sys.setprofile(before)
    return entered[1:]  # without the lambda


OTHER_VARIABLES = ("ATEN_CPU_CAPABILITY=default", "ONEDNN_MAX_CPU_ISA=AVX2")
PROGRAM = """
import torch
from clearhead import attention, kernels
for size in ((1, 2, 131, 64), (2, 3, 1, 64), (1, 1, 1, 1)):
    for learns in (False, True):
        for kernel in (None, "torch"):
            x = torch.randn(size).bfloat16().requires_grad_(learns)
            planned = kernels.explain(x, x, x, kernel=kernel)
            out = attention(x, x, x, kernel=kernel)
            if learns:
                out.sum().backward()
            print(planned.path, planned.kernel)
"""


@pytest.mark.parametrize(
    "variable",
    ["ATEN_CPU_CAPABILITY=avx2", *(pytest.param(name, marks=pytest.mark.stress) for name in OTHER_VARIABLES)],
)
@pytest.mark.slow
def test_torch_with_restricted_instructions_is_not_called_where_it_raises(variable: str) -> None:
    """On a CPU with AMX, torch 2.13's attention in bfloat16 raises with such an ATEN_CPU_CAPABILITY."""
    name, _, value = variable.partition("=")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, name: value}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
