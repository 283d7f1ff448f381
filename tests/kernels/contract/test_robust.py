"""Edge cases: NaN, infinities, denormals, logits of ten thousand, L or S of 0 and 1."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from clearhead import attention, kernels
from clearhead.kernels import Problem

from ..cases import Case
from ..implementations import runner
from ..oracle import exact, gradients
from ..targets import TARGETS, needs_native

pytestmark = [needs_native, pytest.mark.pairwise]
DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture(params=TARGETS, autouse=True)
def target(request):
    with kernels.target(request.param):
        yield request.param


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def softmax_attention(problem: Problem) -> Tensor:
    """Return softmax attention as written, with the NaN and infinities of IEEE arithmetic."""
    logits = problem.query @ problem.key.mT * problem.attention.scale
    return logits.softmax(-1) @ problem.value


@pytest.mark.parametrize("length", [3, 37])  # few queries take another kernel
@pytest.mark.parametrize("where", ["query", "key", "value"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_stays_in_the_rows_it_reaches(where: str, length: int, dtype: torch.dtype) -> None:
    tensors = {"query": numbers(1, 2, length, 19), "key": numbers(1, 2, 131, 19), "value": numbers(1, 2, 131, 19)}
    tensors[where][0, 1, 2, 5] = torch.nan
    problem = Problem(**{name: x.to(dtype) for name, x in tensors.items()}, scale=0.2)
    got = kernels.run(problem, kernel="native").out
    reached = torch.zeros(1, 2, length, 19, dtype=torch.bool)
    if where == "query":
        reached[0, 1, 2] = True
    elif where == "key":
        reached[0, 1] = True
    else:
        reached[0, 1, :, 5] = True
    # Not compared with torch's product, which with AMX spreads a NaN of one bfloat16 row to the next.
    assert torch.equal(got.isnan(), reached)


# Of 67 columns the last ones fill no vector, so that others are read twice: here the middle one.
@pytest.mark.parametrize(("width", "column"), [(19, 4), (67, 3), (67, 53), (67, 65)])
@pytest.mark.parametrize("length", [3, 37])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_infinite_value_reaches_every_row_and_an_infinite_key_gives_nan_or_no_weight(
    sign: int, length: int, width: int, column: int
) -> None:
    query, key, value = numbers(1, 1, length, width), numbers(1, 1, 131, width), numbers(1, 1, 131, width)
    value[0, 0, 7, column] = sign * torch.inf
    got = kernels.run(Problem(query, key, value, 0.2), kernel="native").out
    assert bool((got[..., column] == sign * torch.inf).all())
    assert bool(got[..., torch.arange(width) != column].isfinite().all())
    key[0, 0, 11] = 0
    key[0, 0, 11, column] = sign * torch.inf  # a logit of -inf takes no weight; one of +inf is inf - inf
    problem = Problem(query, key, numbers(1, 1, 131, width), 0.2)
    got, down = kernels.run(problem, kernel="native").out, sign * query[0, 0, :, column] < 0
    assert torch.equal(got[0, 0].isnan().all(-1), ~down)
    torch.testing.assert_close(got[0, 0, down], softmax_attention(problem)[0, 0, down], atol=2e-6, rtol=1e-5)


# The gradient of a sum has strides of 0; of a transposed or sliced output it has rows that are not contiguous.
UPSTREAMS = {
    "expanded": lambda *shape: numbers(1).expand(shape),
    "transposed": lambda *shape: numbers(*shape[:-2], shape[-1], shape[-2]).mT,
    "every second": lambda *shape: numbers(*shape[:-1], 2 * shape[-1])[..., ::2],
    "negated": lambda *shape: torch._neg_view(numbers(*shape)),
}
CALLS = {"fast path": {}, "causal": {"is_causal": True}, "kernel": {"softcap": 5.0}}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16, torch.float64], ids=str)
def test_incoming_gradients_may_have_any_strides(call: str, dtype: torch.dtype) -> None:
    for length, (name, upstream) in itertools.product((3, 37), UPSTREAMS.items()):
        tensors = [numbers(1, 2, length, 19).to(dtype).requires_grad_() for _ in range(3)]
        out, given = attention(*tensors, **CALLS[call]), upstream(1, 2, length, 19).to(dtype)
        got = torch.autograd.grad(out, tensors, given, retain_graph=True)
        expected = torch.autograd.grad(out, tensors, given.resolve_neg().contiguous())
        assert all(map(torch.equal, got, expected)), (length, name)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16, torch.float64], ids=str)
def test_hooks_on_saved_tensors_may_change_strides(call: str, dtype: torch.dtype) -> None:
    tensors = [numbers(1, 2, 37, 19).to(dtype).requires_grad_() for _ in range(3)]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.detach().mT.contiguous().mT, lambda x: x):
        changed = attention(*tensors, **CALLS[call])
    upstream = numbers(1, 2, 37, 19).to(dtype)
    got = torch.autograd.grad(changed, tensors, upstream)
    expected = torch.autograd.grad(attention(*tensors, **CALLS[call]), tensors, upstream)
    assert all(map(torch.equal, got, expected))


def test_a_nan_in_a_masked_key_has_no_effect() -> None:
    query, key, value = numbers(2, 2, 37, 19), numbers(2, 2, 131, 19), numbers(2, 2, 131, 19)
    allow = (torch.arange(131) < 60)[None, None, None]
    expected = kernels.run(Problem(query, key, value, 0.2, allow=allow), kernel="native").out
    key[:, :, 60:] = torch.nan
    got = kernels.run(Problem(query, key, value, 0.2, allow=allow), kernel="native").out
    torch.testing.assert_close(got, expected)


BAND = torch.arange(131) <= torch.arange(37)[:, None] + 40
MASKING: dict[str, dict[str, object]] = {
    "causal": {"is_causal": True},
    "window": {"reach": (-5, 2)},
    "padding": {"allow": (torch.arange(131) < 60)[None, None, None]},
    "a mask of rows": {"allow": BAND[None, None]},
    "bias of -inf": {"bias": torch.where(BAND, 0.5, -torch.inf)[None, None]},
}


@pytest.mark.parametrize("kind", MASKING)
@pytest.mark.parametrize("strange", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("length", [3, 37])
def test_a_nonfinite_value_reaches_only_the_rows_that_may_attend_it(
    length: int, dtype: torch.dtype, strange: float, kind: str
) -> None:
    """Other queries and keys in the same tile are not affected."""
    query, key = numbers(1, 2, length, 19).to(dtype), numbers(1, 1, 131, 19).to(dtype)
    value = numbers(1, 1, 131, 67).to(dtype)
    options = {
        name: x[:, :, :length] if isinstance(x, Tensor) and x.shape[2] > 1 else x for name, x in MASKING[kind].items()
    }
    clean = kernels.run(Problem(query, key, value, 0.2, **options), kernel="native").out
    value[0, 0, [2, 30, 59, 70, 130], 65] = strange
    problem = Problem(query, key, value, 0.2, **options)
    attended = exact(Problem(query, key, torch.eye(131, dtype=dtype)[None, None], 0.2, **options))[0] != 0
    reached = attended[..., [2, 30, 59, 70, 130]].any(-1)
    for out in (kernels.run(problem, kernel="native").out, *_out_beside_weights(problem)):
        assert torch.equal(out[..., 65].isfinite(), ~reached)
        spoilt = reached[..., None] & (torch.arange(67) == 65)
        tolerance = 8 * torch.finfo(dtype).eps
        torch.testing.assert_close(out[~spoilt], clean[~spoilt], atol=tolerance, rtol=tolerance)


def _out_beside_weights(problem: Problem) -> list[Tensor]:
    both = kernels.with_weights(problem)
    return [] if both is None else [both[0]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_denormals_are_kept_unless_the_target_flushes_them(dtype: torch.dtype, target: str) -> None:
    value = (numbers(1, 2, 131, 19) * 1e-39).to(dtype)
    problem = Problem(numbers(1, 2, 37, 19).to(dtype), numbers(1, 2, 131, 19).to(dtype), value, 0.2)
    got = kernels.run(problem, kernel="native").out
    (row,) = [row for row in kernels.targets() if row.name == target]
    if dtype in row.flushes:  # its products flush them to 0 (docs/differences.md)
        assert got.abs().max() == 0
        return
    assert got.abs().max() > 0
    torch.testing.assert_close(got.double(), exact(problem)[0], atol=1e-40, rtol=1e-2)


@pytest.mark.parametrize("length", [1, 37])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_logits_of_ten_thousand(length: int, dtype: torch.dtype) -> None:
    """The largest logit takes all the weight, so the output is that key's value, and nothing overflows."""
    query, key = numbers(1, 2, length, 16), numbers(1, 2, 131, 16)
    largest = (query @ key.mT).abs().max()
    problem = Problem(query.to(dtype), key.to(dtype), numbers(1, 2, 131, 16).to(dtype), float(1e4 / largest))
    result = kernels.run(problem, kernel="native")
    out, lse = exact(problem)
    assert result.out.isfinite().all()
    torch.testing.assert_close(result.lse.double(), lse, atol=1e-2, rtol=1e-6)
    torch.testing.assert_close(result.out.double(), out, atol=2e-2, rtol=2e-2)
    for grad in gradients(runner("native"), problem, "both").values():
        assert grad.isfinite().all()


@pytest.mark.parametrize(("length", "keys"), list(itertools.product((0, 1, 2), (0, 1, 2))))
@pytest.mark.parametrize(
    "option", [{}, {"is_causal": True}, {"reach": (1, 1)}, {"sinks": True}, {"allow": "nothing"}], ids=str
)
def test_lengths_of_0_1_and_2(length: int, keys: int, option: dict[str, object]) -> None:
    problem = replace(Case(length=length, keys=keys), **option).problem()
    result, (out, lse) = kernels.run(problem, kernel="native"), exact(problem)
    torch.testing.assert_close(result.out.double(), out, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(result.lse.double(), lse, atol=1e-5, rtol=1e-5)
    actual, expected = (gradients(compute, problem, "both") for compute in (runner("native"), exact))
    for name in actual:
        torch.testing.assert_close(actual[name].double(), expected[name].double(), atol=2e-5, rtol=1e-4)
