"""The native linear layer, compared with float64 and with torch's own error, for every dtype, layout and target."""

import pytest
import torch
import torch.nn.functional as F

from clearhead import kernels
from clearhead.kernels import projection
from clearhead.kernels.measured import costs, tasks

from ..targets import TARGETS, needs_native

pytestmark = [needs_native, pytest.mark.pairwise]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
torch_multiplies = projection._torch_multiplies.__wrapped__  # without its cache


@pytest.fixture(params=TARGETS, autouse=True)
def target(request):
    with kernels.target(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def _prefer_ours(monkeypatch):
    monkeypatch.setattr("clearhead.kernels.projection._torch_multiplies", lambda dtype: False)


def numbers(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def check(got, x, weight, bias):
    """Check that the error is at most 1.5 times torch's, plus four units in the last place of the largest entry."""
    truth = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    theirs = (F.linear(x, weight, bias).double() - truth).abs().max().item()
    floor = 4 * torch.finfo(torch.float32).eps * truth.abs().max().item()
    assert got.dtype == x.dtype
    assert (got.double() - truth).abs().max().item() <= 1.5 * theirs + floor


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [
        (4, 5, 3), (37, 53, 71), (131, 787, 17), (7, 1, 1), (193, 64, 192),
        (1, 256, 257), (1, 251, 263), (5, 64, 37), (11, 96, 131), (31, 128, 19), (13, 53, 131),
    ],
)  # fmt: skip
def test_project_equals_a_linear_layer(rows, inputs, outputs, dtype):
    x, weight, bias = (
        numbers(rows, inputs, dtype=dtype),
        numbers(outputs, inputs, dtype=dtype, seed=1),
        numbers(outputs, dtype=dtype, seed=2),
    )
    if rows > 1 or dtype is not torch.float16:
        assert kernels.linear_is_faster(x, weight, bias)
    check(kernels.project(x, weight, bias), x, weight, bias)
    check(kernels.project(x, weight), x, weight, None)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(311, 67, 41), (7, 160, 509)])
def test_the_bits_do_not_depend_on_the_number_of_threads(rows, inputs, outputs, threads, monkeypatch):
    x, weight, bias = numbers(rows, inputs), numbers(outputs, inputs, seed=1), numbers(outputs, seed=2)
    whole = kernels.project(x, weight, bias)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert torch.equal(kernels.project(x, weight, bias), whole)


def test_inputs_of_any_rank_and_stride():
    weight, bias = numbers(23, 19, seed=1), numbers(23, seed=2)
    wide = numbers(3, 5, 7, 38)
    for x in (
        wide[..., :19],
        wide[..., ::2],
        wide[..., :19].transpose(0, 2),
        numbers(3, 5, 19, 7).mT,
        wide[:1, :, :, :19].expand(3, -1, -1, -1),
    ):
        check(kernels.project(x, weight, bias), x, weight, bias)
    check(
        kernels.project(wide[..., :19], numbers(19, 23, seed=1).mT, bias),
        wide[..., :19],
        numbers(19, 23, seed=1).mT,
        bias,
    )


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("heads", "head_dim"), [(3, 7), (2, 64), (5, 1), (1, 129)])
def test_the_rows_of_each_head_are_adjacent(heads, head_dim, dtype, batch_first):
    x, weight, bias = (
        numbers(3, 11, 13, dtype=dtype),
        numbers(heads * head_dim, 13, dtype=dtype, seed=1),
        numbers(heads * head_dim, dtype=dtype, seed=2),
    )
    got = kernels.project_to_heads(x, weight, bias, head_dim, batch_first)
    batch, length = (3, 11) if batch_first else (11, 3)
    assert got.shape == (batch, heads, length, head_dim)
    assert got.is_contiguous()
    back = got.transpose(1, 2) if batch_first else got.permute(2, 0, 1, 3)
    check(back.flatten(-2), x, weight, bias)


@pytest.mark.parametrize("shape", [(0, 5), (4, 0), (2, 0, 5)])
def test_inputs_with_an_axis_of_size_0(shape):
    weight, bias = numbers(3, shape[-1], seed=1), numbers(3, seed=2)
    assert torch.equal(kernels.project(torch.zeros(shape), weight, bias), F.linear(torch.zeros(shape), weight, bias))


def test_nonfinite_numbers_stay_in_their_rows_and_columns():
    x, weight = numbers(37, 29), numbers(31, 29, seed=1)
    x[5, 3], x[7, 2], weight[11, 4] = torch.nan, torch.inf, -torch.inf
    got, expected = kernels.project(x, weight), F.linear(x, weight)
    assert torch.equal(got.isnan(), expected.isnan())
    assert torch.equal(got.isposinf(), expected.isposinf())
    assert torch.equal(got.isneginf(), expected.isneginf())


def test_calls_that_are_left_to_torch():
    x, weight, bias = numbers(8, 5), numbers(7, 5, seed=1), numbers(7, seed=2)
    assert not kernels.linear_is_faster(x.double(), weight.double())
    assert not kernels.linear_is_faster(x, weight.bfloat16())
    assert not kernels.linear_is_faster(x, weight, bias.double())
    assert not kernels.linear_is_faster(x[:1], weight)  # a single row of a small layer
    assert kernels.linear_is_faster(numbers(1, 256), numbers(257, 256))
    assert not kernels.linear_is_faster(x, weight.clone().requires_grad_())
    with torch.no_grad():
        assert kernels.linear_is_faster(x, weight.clone().requires_grad_())
    with torch.autocast("cpu"):
        assert not kernels.linear_is_faster(x, weight)
    grad = torch.autograd.grad(kernels.project(x, weight.requires_grad_(), bias).sum(), weight)[0]
    torch.testing.assert_close(grad, x.sum(0).expand(7, 5))


def test_16_bit_dtypes_are_left_to_torch_if_the_cpu_has_instructions_for_them(monkeypatch):
    monkeypatch.setattr("clearhead.kernels.projection._torch_multiplies", lambda dtype: dtype is torch.bfloat16)
    x, weight = numbers(8, 5), numbers(7, 5, seed=1)
    assert not kernels.linear_is_faster(x.bfloat16(), weight.bfloat16())
    assert kernels.linear_is_faster(x, weight)


def test_few_rows_have_costs_of_their_own(monkeypatch):
    slow, fast = tasks.Cost(900.0, 0.0, 0.0), tasks.Cost(1.0, 0.0, 0.0)
    known = {tasks.LINEAR: (fast, slow), tasks.LINEAR_FEW: (slow, fast)}
    monkeypatch.setattr(costs, "of", lambda task, dtype: costs.Known(*known[task], "a test"))
    weight = numbers(7, 5, seed=1)
    assert [kernels.linear_is_faster(numbers(rows, 5), weight) for rows in (1, 3, 4)] == [False, False, True]
    del known[tasks.LINEAR_FEW]
    monkeypatch.setattr(costs, "of", lambda task, dtype: costs.Known(*known[task], "a test") if task in known else None)
    assert kernels.linear_is_faster(numbers(1, 5), weight)  # without them, those of any layer


@pytest.mark.parametrize(
    ("features", "multiplies"),
    [
        ({"avx2", "avx512f"}, False),  # oneDNN emulates its products there, and says that it has them
        ({"avx2", "avx512f", "avx512bf16"}, True),
        ({"avx2", "avx512f", "avx512bf16", "amx-bf16"}, True),
        (set(), True),  # an Arm CPU, whose instructions the library does not name
    ],
)
def test_emulated_products_are_no_instructions(features, multiplies, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr("clearhead.kernels.projection.cpu_features", lambda: frozenset(features))
    assert torch_multiplies(torch.bfloat16) is multiplies
