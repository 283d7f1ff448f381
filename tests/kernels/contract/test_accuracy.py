"""The error against float64, over masks, dtypes, shapes and targets, in units of each dtype's epsilon.

float32 and float64: a logit of size x has an error of about eps·x for any order of summation, and its weight has that
relative error; so the output's error is proportional to eps · (1 + largest logit) · largest value. 16 bits: the sums
are float32, so the error is half a unit from rounding the output, and less from rounding the weights. No bound depends
on torch's error on this machine: on one CPU it multiplies float32 in bfloat16, on another it sums in another order.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from clearhead import kernels
from clearhead.kernels import Problem

from ..cases import Case
from ..implementations import runner
from ..oracle import added, allowed, exact, gradients
from ..rounding import largest_logit
from ..targets import HERE, TARGETS, needs_native

pytestmark = [needs_native, pytest.mark.pairwise]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Largest error and root mean square: twice the worst case measured here for the first, four times for the second.
OUTPUT = {torch.float64: (2.0, 0.1), torch.float32: (2.0, 0.1), torch.bfloat16: (0.8, 0.15), torch.float16: (0.8, 0.15)}
GRADIENT = {torch.float32: (20.0, 2.0), torch.bfloat16: (1.6, 0.2), torch.float16: (1.6, 0.2)}

_SMALL = Case(heads=4, kv_heads=4, width=64, value_width=64, scale=0.125)
SHAPES: dict[str, Case] = {
    "short": replace(_SMALL, length=37, keys=53),
    "one query": replace(_SMALL, length=1, keys=1031),
    "narrow": replace(_SMALL, length=131, keys=131, width=17, value_width=17, scale=17**-0.5),
    "grouped, wide": replace(
        _SMALL, batch=1, length=67, keys=257, width=128, value_width=128, kv_heads=2, scale=128**-0.5
    ),
    "long": replace(_SMALL, batch=1, heads=1, kv_heads=1, length=307, keys=2053),
}
MASKS: dict[str, dict[str, object]] = {
    "full": {},
    "causal": {"is_causal": True},
    "window": {"reach": (-19, 3)},
    "padding": {"allow": "lengths"},
    "dense bool": {"allow": "matrix"},
    "dense float": {"bias": (1, 1)},
    "soft cap": {"softcap": 5.0},
    "sinks": {"sinks": True},
    "large logits": {"spread": 30.0},
}


def check(error: Tensor, units: tuple[float, float], unit: float, label: str) -> None:
    for name, actual, limit in zip(
        ("largest", "mean"), (error.abs().max().item(), error.square().mean().sqrt().item()), units, strict=True
    ):
        assert actual <= limit * unit, f"{label}: {name} error {actual / unit:.2f} units, at most {limit}"


def unit_of_output(problem: Problem, truth: Tensor) -> float:
    dtype = problem.query.dtype
    eps = torch.finfo(dtype).eps
    if dtype.itemsize == 2:
        return eps * truth.abs().max().item()
    return eps * (1 + largest_logit(problem)) * problem.value.abs().max().item()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward(shape: str, mask: str, dtype: torch.dtype) -> None:
    problem = replace(SHAPES[shape], **MASKS[mask]).problem(dtype)
    truth = exact(problem)[0]
    unit = unit_of_output(problem, truth)
    for target in HERE:
        with kernels.target(target):
            got = kernels.run(problem, kernel="native").out
        assert got.isfinite().all()
        check(got.double() - truth, OUTPUT[dtype], unit, target)


@pytest.mark.parametrize("target", TARGETS)
def test_rounded_weights_still_give_an_accurate_mean(target: str) -> None:
    make = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 4, 131, 64, generator=make) for _ in range(3))
    problem = Problem(*(x.bfloat16() for x in (query, key, value + 5)), scale=0.125)
    with kernels.target(target):
        got = kernels.run(problem, kernel="native").out
    half_a_unit = torch.finfo(torch.bfloat16).eps * 4 / 2  # of an output between 4 and 8
    assert (got.double() - exact(problem)[0]).abs().max() < 1.07 * half_a_unit


@pytest.mark.parametrize("target", TARGETS)
def test_weights_of_a_long_row_have_the_sum_of_one(target: str) -> None:
    make = torch.Generator().manual_seed(0)
    query, key = torch.randn(1, 4, 67, 64, generator=make), torch.randn(1, 4, 4001, 64, generator=make)
    with kernels.target(target):
        found = kernels.with_weights(Problem(query, key, key, scale=0.125))
    assert found is not None
    error = found[1].double().sum(-1) - 1  # that of the sum that they were divided by: each one's own error cancels out
    assert error.square().mean().sqrt() < 4 * torch.finfo(torch.float32).eps


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mask", ["full", "causal", "window", "padding", "dense float", "soft cap"])
def test_gradients(mask: str, dtype: torch.dtype) -> None:
    problem = replace(SHAPES["short"], length=71, keys=139, **MASKS[mask]).problem(dtype)
    truth = gradients(exact, problem, "out")
    for target in HERE:
        with kernels.target(target):
            actual = gradients(runner("native"), problem, "out")
        for name in ("query", "key", "value"):
            unit = torch.finfo(dtype).eps * truth[name].abs().max().item()
            check(actual[name].double() - truth[name].double(), GRADIENT[dtype], unit, f"{target}, {name}")


def in_80_bits(problem: Problem) -> np.ndarray:
    """Compute the output by the equation, with a mantissa of 64 bits."""
    query, key, value = (
        np.asarray(x.numpy(), np.longdouble)
        for x in (problem.query, *(x.repeat_interleave(problem.group, 1) for x in (problem.key, problem.value)))
    )
    logits = np.matmul(query, key.swapaxes(-1, -2)) * np.longdouble(problem.attention.scale)
    bias = added(problem, torch.float64)
    if bias is not None:
        logits = logits + bias.numpy()
    logits = np.where(allowed(problem).numpy(), logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.matmul(weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 60, reason="this machine has no floating-point type longer than float64"
)
@pytest.mark.parametrize("mask", ["full", "causal", "window", "dense float", "large logits"])
@pytest.mark.parametrize("shape", ["short", "one query", "narrow"])
def test_forward_of_float64(shape: str, mask: str) -> None:
    problem = replace(SHAPES[shape], **MASKS[mask]).problem(torch.float64)
    truth = in_80_bits(problem)
    unit = unit_of_output(problem, problem.value)
    for target in HERE:
        with kernels.target(target):
            got = kernels.run(problem, kernel="native").out
        check(torch.from_numpy((got.numpy() - truth).astype(np.float64)), OUTPUT[torch.float64], unit, target)
