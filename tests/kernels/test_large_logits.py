"""Gradients of float32 where logits are in the hundreds: within twice what plain torch loses, which keeps its weights.

A kernel keeps the log-sum-exp of a row instead, and a float32 of 300 is good to 1.5e-5. Where one key has nearly all of
a row's weight, as such rows mostly are, that error is all there is to the gradient of the values.
"""

import platform
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import clearhead
from clearhead import kernels

from .cases import Case
from .targets import HERE, TARGETS
from .test_contract import exact, gradients, plain, runner

pytestmark = pytest.mark.skipif(not kernels.targets(), reason="the native library was not built on this machine")
# These multiply and add in one rounding, as torch's product does: on x86 an instruction set of its own.
X86 = platform.machine() in ("x86_64", "AMD64")
FUSED = [row.name for row in kernels.targets() if "fma" in row.needs or not X86]
# Up to 8 queries have a forward pass of their own.
LENGTHS = {"3 queries, 6 keys": (3, 7), "5 queries": (5, 307), "13 queries": (13, 67), "131 queries": (131, 307)}
KINDS: dict[str, dict[str, object]] = {
    "full": {},
    "causal": {"is_causal": True},
    "padding": {"allow": "lengths"},
    "bias": {"bias": (1, 1)},
    "grouped": {"heads": 6, "kv_heads": 2},
    "sinks": {"sinks": True},
    "soft cap": {"softcap": 300.0},
}


def shares(actual, truth, theirs):
    """Root of the mean square of our errors and of torch's, and the largest ones."""
    ours, their = (actual.double() - truth.double(), theirs.double() - truth.double())
    return [
        (size(ours), size(their))
        for size in (lambda x: x.square().mean().sqrt().item(), lambda x: x.abs().max().item())
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", LENGTHS)
def test_gradients_lose_no_more_than_twice_what_plain_torch_loses(length: str, kind: str) -> None:
    queries, keys = LENGTHS[length]
    case = replace(Case(batch=2, length=queries, keys=keys, width=8, value_width=8, spread=40.0), **KINDS[kind])
    problem = case.problem()
    truth, theirs = gradients(exact, problem, "out"), gradients(plain, problem, "out")
    for target in HERE:
        with kernels.target(target):
            actual = gradients(runner("native"), problem, "out")
        # Plain torch gets its sinks' share from a rounded lse, and some of ours come from a sum of few.
        slack = 2.0 if target in FUSED else 3.0
        for name in ("query", "key", "value"):
            unit = torch.finfo(torch.float32).eps * truth[name].abs().max().item()
            for ours, their in shares(actual[name], truth[name], theirs[name]):
                assert ours <= slack * max(their, 4 * unit), f"{target}, {name}: {ours:.1e}, torch {their:.1e}"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("queries", [5, 37])
def test_a_key_that_takes_all_the_weight_passes_its_gradient_on_whole(queries: int, target: str) -> None:
    """Each query has one key, whose logit is some 500 above all others: dV is dO, to the last digits."""
    place = torch.randperm(131, generator=torch.Generator().manual_seed(1))[:queries]
    key = torch.eye(131)[None, None] * 31.7
    query = key[:, :, place] * 0.53
    value = torch.randn(1, 1, 131, 7, requires_grad=True)
    upstream = torch.randn(1, 1, queries, 7)
    with kernels.target(target):
        out = kernels.run(kernels.Problem(query, key, value, 0.93), kernel="native").out
        (actual,) = torch.autograd.grad(out, value, upstream)
    torch.testing.assert_close(actual[0, 0, place], upstream[0, 0], rtol=4e-7, atol=0)


@pytest.mark.parametrize("way", ["eager", "operator", "torch.func"])
def test_every_way_to_the_kernels_keeps_the_digits(way: str) -> None:
    key = torch.eye(131)[None, None] * 31.7
    query, upstream = key[:, :, :37] * 0.53, torch.randn(1, 1, 37, 7)
    value = torch.randn(1, 1, 131, 7, requires_grad=True)

    def attend(value: torch.Tensor) -> torch.Tensor:
        return clearhead.attention(query, key, value, scale=0.93)

    with FlopCounterMode(display=False) if way == "operator" else nullcontext():
        if way == "torch.func":
            actual = torch.func.vjp(attend, value.detach())[1](upstream)[0]
        else:
            (actual,) = torch.autograd.grad(attend(value), value, upstream)
    torch.testing.assert_close(actual[0, 0, :37], upstream[0, 0], rtol=4e-7, atol=0)
    assert clearhead.attention(query, key, value, return_lse=True)[1].dtype is torch.float32
