"""A part of an attention equals those rows of the whole, dropout bit for bit."""

from collections.abc import Iterator

import pytest
import torch

from clearhead import kernels
from clearhead.kernels import Problem
from clearhead.spec import Attention

from ..implementations import IMPLEMENTATIONS, skip_if_refused
from ..targets import chosen

B, H, H_KV, L, S, D = 2, 6, 3, 131, 157, 7


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    with chosen(request.param) as name:
        yield name


def whole(dtype: torch.dtype, **fields) -> Problem:
    """Return a problem whose output is its weights after dropout."""
    make = torch.Generator().manual_seed(1)
    query, key = (torch.randn(B, heads, n, D, generator=make).to(dtype) for heads, n in ((H, L), (H_KV, S)))
    value = torch.eye(S, dtype=dtype).expand(B, H_KV, S, S)
    slopes = (torch.rand(H, generator=make) / 8).to(dtype)
    attention = Attention(0.3, dropout_p=0.3, seed=(5 << 40) + 77, alibi=slopes, **fields)
    return Problem(query, key, value, attention)


def part(problem: Problem, rows: slice, keys: slice) -> Problem:
    tensors = problem.query[:, :, rows], problem.key[:, :, keys], problem.value[:, :, keys]
    return Problem(*tensors, problem.attention.part(rows, keys))


@pytest.mark.parametrize("kernel", IMPLEMENTATIONS, indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [slice(17, 90), slice(101, 104)], ids=["tiles", "few queries"])
@pytest.mark.parametrize("fields", [{}, {"band_low": -40, "band_high": 3, "first_query": 9}], ids=["all", "window"])
def test_rows_have_the_dropout_pattern_of_the_whole(kernel, dtype, rows, fields):
    problem = whole(dtype, **fields)
    skip_if_refused(kernel, problem)
    every = kernels.run(problem, kernel=kernel).out[:, :, rows]
    some = kernels.run(part(problem, rows, slice(None)), kernel=kernel).out
    assert torch.equal(some == 0, every == 0)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(some, every, rtol=64 * eps, atol=4 * eps)


@pytest.mark.parametrize("kernel", IMPLEMENTATIONS, indirect=True)
@pytest.mark.parametrize("rows", [slice(17, 90), slice(101, 104)], ids=["tiles", "few queries"])
def test_keys_in_two_shards_merge_to_the_whole(kernel, rows):
    """Each shard has its own positions; their outputs merge by the lse, with dropout."""
    problem = part(whole(torch.float32, band_low=-60, band_high=30), rows, slice(None))
    skip_if_refused(kernel, problem)
    result = kernels.run(problem, kernel=kernel)
    shards = [kernels.run(part(problem, slice(None), keys), kernel=kernel) for keys in (slice(0, 83), slice(83, S))]
    lse = torch.logsumexp(torch.stack([shard.lse for shard in shards]), 0)
    joined = sum(shard.out * torch.exp(shard.lse - lse)[..., None] for shard in shards)
    assert torch.equal(joined == 0, result.out == 0)
    torch.testing.assert_close(lse, result.lse)
    torch.testing.assert_close(joined, result.out, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kernel", IMPLEMENTATIONS, indirect=True)
def test_gradients_of_parts_add_up_to_those_of_the_whole(kernel):
    problem = whole(torch.float64, band_low=-60, band_high=30)
    skip_if_refused(kernel, problem)
    grad = torch.randn(B, H, L, S, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def gradients(*runs: slice) -> list[torch.Tensor]:
        learning = [t.detach().clone().requires_grad_() for t in (problem.query, problem.key, problem.attention.alibi)]
        query, key, slopes = learning
        same = problem.change(query=query, key=key, alibi=slopes)
        outs = [kernels.run(part(same, rows, slice(None)), kernel=kernel).out for rows in runs]
        return list(torch.autograd.grad((torch.cat(outs, 2) * grad).sum(), learning))

    for whole_grad, parts_grad in zip(gradients(slice(0, L)), gradients(slice(0, 5), slice(5, L)), strict=True):
        torch.testing.assert_close(parts_grad, whole_grad, rtol=1e-9, atol=1e-11)


@pytest.mark.skipif(not kernels.targets(), reason="the native library was not built on this machine")
def test_the_library_has_every_field_of_an_attention():
    from clearhead import _native
    from clearhead.spec import FIELDS, Axes

    call, gradients = _native.Attention(), _native.Gradients()
    # A rule is evaluated, and key_bias is added to bias, before a kernel is called.
    for name, row in FIELDS.items():
        assert hasattr(call, name) or name in ("rule", "key_bias")
        if row.learns and name != "key_bias":
            assert hasattr(gradients, f"{name}_rows" if row.axes is Axes.HEADS else f"grad_{name}")
