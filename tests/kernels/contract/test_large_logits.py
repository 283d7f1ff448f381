"""Gradients of float32 with logits in the hundreds: at most twice the error of plain torch, which keeps its weights.

A kernel keeps the lse of a row instead, and float32 represents 300 with an error of 1.5e-5. If one key has nearly all
of a row's weight, as in most such rows, that error dominates the gradient of the values.
"""

import platform
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import clearhead
from clearhead import kernels

from ..cases import Case
from ..implementations import runner
from ..oracle import exact, gradients, plain
from ..targets import HERE, TARGETS

pytestmark = pytest.mark.skipif(not kernels.targets(), reason="the native library was not built on this machine")
# Targets with a fused multiply-add, as in torch's product; on x86 it is a separate CPU feature.
X86 = platform.machine() in ("x86_64", "AMD64")
FUSED = [row.name for row in kernels.targets() if "fma" in row.needs or not X86]
# Up to 8 queries take another forward pass.
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


def errors(actual, truth, theirs):
    """Return (ours, torch's) for the root mean square error and for the largest error."""
    ours, their = (actual.double() - truth.double(), theirs.double() - truth.double())
    return [
        (size(ours), size(their))
        for size in (lambda x: x.square().mean().sqrt().item(), lambda x: x.abs().max().item())
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", LENGTHS)
def test_gradient_errors_are_at_most_twice_those_of_plain_torch(length: str, kind: str) -> None:
    queries, keys = LENGTHS[length]
    case = replace(Case(batch=2, length=queries, keys=keys, width=8, value_width=8, spread=40.0), **KINDS[kind])
    problem = case.problem()
    truth, theirs = gradients(exact, problem, "out"), gradients(plain, problem, "out")
    for target in HERE:
        with kernels.target(target):
            actual = gradients(runner("native"), problem, "out")
        # Plain torch computes the share of sinks from a rounded lse, and some of our errors are means over few numbers.
        slack = 2.0 if target in FUSED else 3.0
        for name in ("query", "key", "value"):
            unit = torch.finfo(torch.float32).eps * truth[name].abs().max().item()
            for ours, their in errors(actual[name], truth[name], theirs[name]):
                assert ours <= slack * max(their, 4 * unit), f"{target}, {name}: {ours:.1e}, torch {their:.1e}"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("queries", [5, 37])
def test_a_key_with_all_the_weight_gets_the_whole_gradient(queries: int, target: str) -> None:
    """For each query the logit of one key is about 500 above all others, so dV equals dO to the last digits."""
    place = torch.randperm(131, generator=torch.Generator().manual_seed(1))[:queries]
    key = torch.eye(131)[None, None] * 31.7
    query = key[:, :, place] * 0.53
    value = torch.randn(1, 1, 131, 7, requires_grad=True)
    upstream = torch.randn(1, 1, queries, 7)
    with kernels.target(target):
        out = kernels.run(kernels.Problem(query, key, value, 0.93), kernel="native").out
        (actual,) = torch.autograd.grad(out, value, upstream)
    torch.testing.assert_close(actual[0, 0, place], upstream[0, 0], rtol=4e-7, atol=0)


@pytest.mark.parametrize("mode", ["eager", "operator", "torch.func"])
def test_every_path_to_the_kernels_keeps_the_digits(mode: str) -> None:
    key = torch.eye(131)[None, None] * 31.7
    query, upstream = key[:, :, :37] * 0.53, torch.randn(1, 1, 37, 7)
    value = torch.randn(1, 1, 131, 7, requires_grad=True)

    def attend(value: torch.Tensor) -> torch.Tensor:
        return clearhead.attention(query, key, value, scale=0.93)

    with FlopCounterMode(display=False) if mode == "operator" else nullcontext():
        if mode == "torch.func":
            actual = torch.func.vjp(attend, value.detach())[1](upstream)[0]
        else:
            (actual,) = torch.autograd.grad(attend(value), value, upstream)
    torch.testing.assert_close(actual[0, 0, :37], upstream[0, 0], rtol=4e-7, atol=0)
    assert clearhead.attention(query, key, value, return_lse=True)[1].dtype is torch.float32
