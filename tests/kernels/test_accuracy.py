"""The error against float64, held to 1.5 times torch's own at the same dtype, over masks, dtypes, shapes and targets.

Torch's own is its flash attention where that can say the problem, else the same written out in plain torch. The floor
is what rounding the answer once more may cost: half a unit in the last place of its largest entry at 16 bits, 6 at
float32 and float64, where sums are taken in another order. float64 itself is held to numbers longer than it.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead import kernels
from clearhead.kernels import Problem

from .cases import Case
from .targets import HERE, TARGETS, needs_native
from .test_contract import added, allowed, exact, gradients, plain, runner

pytestmark = [needs_native, pytest.mark.pairwise]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
UNITS = {torch.float32: 6.0, torch.bfloat16: 0.5, torch.float16: 0.5}

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


def torchs(problem: Problem) -> Tensor:
    """What torch itself gives for the output."""
    if problem.softcap is not None or problem.sinks is not None:
        return plain(problem)[0]
    query, key, value = problem.query, problem.key, problem.value
    mask = problem.bias
    if mask is None and (problem.allow is not None or problem.reach != (None, None)):
        mask = allowed(problem)
    return F.scaled_dot_product_attention(
        query, key, value, mask, is_causal=problem.is_causal and mask is None, scale=problem.scale,
        enable_gqa=problem.group > 1,
    )  # fmt: skip


def held(got: Tensor, truth: Tensor, theirs: Tensor, dtype: torch.dtype, what: str) -> None:
    """Largest error and root of the mean square, both; where torch answers NaN (a row that is empty) ours is right."""
    known = theirs.isfinite() & truth.isfinite()
    floor = UNITS[dtype] * torch.finfo(dtype).eps * truth[truth.isfinite()].abs().max().item()
    ours, their = (x.double()[known] - truth[known] for x in (got, theirs))
    for name, measure in (("largest", lambda x: x.abs().max()), ("mean", lambda x: x.square().mean().sqrt())):
        mine, limit = measure(ours).item(), 1.5 * measure(their).item() + floor
        assert mine <= limit, f"{what}: {name} error {mine:.2e}, at most {limit:.2e}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward(shape: str, mask: str, dtype: torch.dtype) -> None:
    problem = replace(SHAPES[shape], **MASKS[mask]).problem(dtype)
    truth, theirs = exact(problem)[0], torchs(problem)
    for target in HERE:
        with kernels.target(target):
            got = kernels.run(problem, kernel="native").out
        assert got.isfinite().all()
        held(got, truth, theirs, dtype, target)


@pytest.mark.parametrize("target", TARGETS)
def test_rounded_weights_still_make_a_mean(target: str) -> None:
    make = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 4, 131, 64, generator=make) for _ in range(3))
    problem = Problem(*(x.bfloat16() for x in (query, key, value + 5)), scale=0.125)
    with kernels.target(target):
        got = kernels.run(problem, kernel="native").out
    half_a_unit = torch.finfo(torch.bfloat16).eps * 4 / 2  # of an output between 4 and 8
    assert (got.double() - exact(problem)[0]).abs().max() < 1.07 * half_a_unit


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mask", ["full", "causal", "window", "padding", "dense float", "soft cap"])
def test_gradients(mask: str, dtype: torch.dtype) -> None:
    problem = replace(SHAPES["short"], length=71, keys=139, **MASKS[mask]).problem(dtype)
    truth, theirs = gradients(exact, problem, "out"), gradients(plain, problem, "out")
    for target in HERE:
        with kernels.target(target):
            found = gradients(runner("native"), problem, "out")
        for name in ("query", "key", "value"):
            held(found[name], truth[name].double(), theirs[name], dtype, f"{target}, {name}")


def in_80_bits(problem: Problem) -> np.ndarray:
    """The output by the equation, in numbers of 64 bits of mantissa."""
    query, key, value = (
        np.asarray(x.numpy(), np.longdouble)
        for x in (problem.query, *(x.repeat_interleave(problem.group, 1) for x in (problem.key, problem.value)))
    )
    logits = np.matmul(query, key.swapaxes(-1, -2)) * np.longdouble(problem.scale)
    bias = added(problem, torch.float64)
    if bias is not None:
        logits = logits + bias.numpy()
    logits = np.where(allowed(problem).numpy(), logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.matmul(weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="this machine has no numbers longer than float64")
@pytest.mark.parametrize("mask", ["full", "causal", "window", "dense float", "large logits"])
@pytest.mark.parametrize("shape", ["short", "one query", "narrow"])
def test_forward_of_float64(shape: str, mask: str) -> None:
    problem = replace(SHAPES[shape], **MASKS[mask]).problem(torch.float64)
    truth = in_80_bits(problem)
    theirs = np.abs(torchs(problem).numpy() - truth)
    floor = 6 * np.finfo(np.float64).eps * np.abs(truth).max()
    for target in HERE:
        with kernels.target(target):
            ours = np.abs(kernels.run(problem, kernel="native").out.numpy() - truth)
        for measure in (np.max, lambda error: np.sqrt(np.square(error).mean())):
            assert measure(ours) <= 1.5 * measure(theirs) + floor, f"{target}: {measure(ours)}, {measure(theirs)}"
