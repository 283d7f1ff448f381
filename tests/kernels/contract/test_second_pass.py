"""The second pass compared with the dense float64 weights: every statistic, every mask, every target."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from clearhead import kernels
from clearhead.kernels import Problem
from clearhead.kernels.second_pass import Cells, Statistics, Wanted, in_forward_pass, refuses, run_with, statistics

from ..oracle import exact_weights
from ..rounding import assert_within, logit_unit
from ..targets import TARGETS, needs_native

pytestmark = [needs_native, pytest.mark.pairwise]
OFFSET = 3
K = 4
UNITS = 10.0  # of rounding.logit_unit, four times the worst case measured here


def problem(
    length: int,
    keys: int,
    dtype: torch.dtype = torch.float32,
    *,
    heads: int = 4,
    spread: float = 1.0,
    **options: object,
) -> Problem:
    make = torch.Generator().manual_seed(length * keys)
    query = torch.randn(2, heads, length, 13, generator=make) * spread
    key = torch.randn(2, 2, keys, 13, generator=make)
    return Problem(query.to(dtype), key.to(dtype), key.to(dtype), 0.5, **options)


def extras(length: int, keys: int) -> dict[str, dict[str, object]]:
    make = torch.Generator().manual_seed(5)
    allow = torch.rand(2, 1, length, keys, generator=make) < 0.6
    allow[:, :, length // 2] = False  # a row that may attend nothing
    bias, sinks = torch.randn(4, length, keys, generator=make), torch.randn(4, generator=make)
    return {
        "plain": {},
        "causal": {"is_causal": True},
        "window": {"reach": (-17, 5)},
        "far": {"reach": (40, None)},
        "mask, cap, sinks": {"allow": allow, "softcap": 1.3, "sinks": sinks},
        "padding, causal": {"allow": allow[:, :, :1], "is_causal": True},
        "bias": {"bias": bias},
        "bias of keys": {"bias": bias[:, :1].bfloat16(), "reach": (-60, 0)},
        "all": {"bias": bias, "allow": allow, "softcap": 2.0, "sinks": sinks, "reach": (None, 9)},
    }


def edges(first: int, last: int, cells: int) -> Tensor:
    """Return the cells of torch's adaptive pooling, which overlap if their number does not divide the length."""
    size = last - first
    return torch.tensor([(first + i * size // cells, first - ((i + 1) * size // -cells)) for i in range(cells)])


def expected(W: Tensor, cells: Cells) -> Statistics:
    away = (torch.arange(W.shape[2])[:, None] + OFFSET - torch.arange(W.shape[3])).abs().double()
    mass = W.sum(-1)
    share = W / mass.clamp_min(1e-300)[..., None]
    around = away - (share * away).sum(-1, keepdim=True)
    best = W.topk(K)[0]

    def cell(rows: list[int], keys: list[int]) -> Tensor:
        part = W[:, :, slice(*rows), slice(*keys)]
        return part.amax((2, 3)) if cells.by_maximum else part.sum((2, 3))

    lines = [torch.stack([cell(rows, keys) for keys in cells.keys.tolist()], -1) for rows in cells.rows.tolist()]
    return Statistics(
        entropy=torch.special.entr(W).sum(-1),
        maximum=W.amax(-1),
        squares=(W**2).sum(-1),
        mass=mass,
        distance=(W * away).sum(-1),
        spread=(share * around**2).sum(-1).sqrt(),
        received=W.sum(2),
        best=best,
        map=torch.stack(lines, -2),
    )


def everything(cells: Cells) -> Wanted:
    return Wanted(True, True, True, True, True, True, OFFSET, True, K, cells)


def check(p: Problem, cells: Cells) -> None:
    W, lse = exact_weights(p)
    actual, exact = statistics(p, lse, everything(cells)), expected(W, cells)
    for name in ("entropy", "maximum", "squares", "mass", "distance", "spread", "received", "best", "map"):
        assert_within(getattr(actual, name), getattr(exact, name), logit_unit(p), UNITS, name)
    assert actual.best_keys is not None
    assert_within(W.gather(-1, actual.best_keys), exact.best, logit_unit(p), UNITS, "best keys")
    assert (actual.best_keys.sort(-1)[0].diff(dim=-1) > 0).all(), "a key is listed twice in a row"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", extras(2, 2))
def test_equals_the_dense_weights(kind: str, dtype: torch.dtype, target: str) -> None:
    with kernels.target(target):
        for length, keys in ((23, 31), (1, 131), (263, 139)):
            p = problem(length, keys, dtype, **extras(length, keys)[kind])
            check(p, Cells(edges(0, length, 5), edges(0, keys, 7)))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.slow
def test_maxima_of_cells_and_cells_finer_than_the_matrix(target: str) -> None:
    with kernels.target(target):
        p = problem(67, 151, is_causal=True)
        check(p, Cells(edges(0, 67, 5), edges(0, 151, 7), by_maximum=True))
        check(p, Cells(edges(0, 67, 71), edges(0, 151, 157)))


def test_a_map_of_a_part_covers_only_that_part() -> None:
    p = problem(67, 151, reach=(None, 61))
    W, lse = exact_weights(p)
    cells = Cells(edges(11, 53, 4), edges(29, 103, 5))
    actual = statistics(p, lse, Wanted(cells=cells)).map
    assert_within(actual, expected(W, cells).map, logit_unit(p), UNITS)


def test_large_logits_keep_their_precision() -> None:
    check(problem(29, 37, spread=30.0), Cells(edges(0, 29, 5), edges(0, 37, 7)))


def test_a_row_on_one_distant_key_has_no_spread_and_no_entropy() -> None:
    bias = torch.full((1, 1, 1, 5003), -torch.inf)
    bias[..., 4999] = 0
    q, k = torch.ones(1, 1, 300, 3), torch.ones(1, 1, 5003, 3)
    actual = statistics(
        Problem(q, k, k, 1.0, bias=bias), torch.full((1, 1, 300), 3.0), everything(Cells(*edges_of(300, 5003)))
    )
    assert actual.spread.abs().max() == 0
    assert actual.entropy.abs().max() < 8 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(actual.distance[0, 0], 4999.0 - OFFSET - torch.arange(300))


def edges_of(length: int, keys: int) -> tuple[Tensor, Tensor]:
    return edges(0, length, 2), edges(0, keys, 2)


def test_of_equal_weights_the_lower_keys_come_first() -> None:
    q = torch.zeros(1, 1, 3, 5)
    k = torch.zeros(1, 1, 300, 5)
    actual = statistics(Problem(q, k, k, 1.0), torch.full((1, 1, 3), 300.0).log(), Wanted(topk=7))
    assert actual.best_keys[0, 0].tolist() == [list(range(7))] * 3


def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    p = problem(1031, 263, is_causal=True)
    wanted = everything(Cells(edges(0, 1031, 11), edges(0, 263, 13)))
    lse, before = kernels.run(p).lse, torch.get_num_threads()
    actual = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            actual.append(statistics(p, lse, wanted))
    finally:
        torch.set_num_threads(before)
    for name in ("received", "map", "entropy", "best"):
        assert torch.equal(getattr(actual[0], name), getattr(actual[1], name)), name
        assert torch.equal(getattr(actual[0], name), getattr(actual[2], name)), name


def test_progress_is_reported_and_ends_at_one(monkeypatch) -> None:
    monkeypatch.setattr("clearhead.kernels.second_pass.CHUNK", 1)
    p, reports = problem(2053, 7), []
    whole = statistics(p, kernels.run(p).lse, Wanted(received=True), reports.append)
    assert reports == [1024 / 2053, 2048 / 2053, 1.0]
    assert_within(whole.received, exact_weights(p)[0].sum(2), logit_unit(p), UNITS)


@pytest.mark.parametrize(("length", "keys"), [(0, 5), (5, 0), (0, 0)])
def test_an_empty_matrix_gives_zeros(length: int, keys: int) -> None:
    p = problem(length, keys)
    actual = statistics(p, torch.full((2, 4, length), -torch.inf), Wanted(entropy=True, maximum=True, received=True))
    assert actual.entropy.shape == (2, 4, length)
    assert actual.received.shape == (2, 4, keys)
    assert all(t.count_nonzero() == 0 for t in (actual.entropy, actual.maximum, actual.received))


def test_refusals_have_reasons() -> None:
    p = problem(5, 7)
    assert refuses(p, Wanted(entropy=True)) is None
    assert "64 largest" in refuses(p, Wanted(topk=65))
    learns = replace(p, query=p.query.clone().requires_grad_())
    assert "gradients" in refuses(learns, Wanted(entropy=True))
    assert "float64" in refuses(replace(p, query=p.query.double(), key=p.key.double()), Wanted(mass=True))


IN_FORWARD = Wanted(entropy=True, maximum=True, squares=True, mass=True, topk=K)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", extras(2, 2))
def test_the_forward_pass_computes_statistics_of_its_rows(kind: str, dtype: torch.dtype, target: str) -> None:
    with kernels.target(target):
        for length, keys in ((23, 31), (1, 131), (263, 139)):
            p = problem(length, keys, dtype, **extras(length, keys)[kind])
            result, actual = run_with(p, IN_FORWARD)
            plain = kernels.run(p, kernel="native")
            # A few queries, and those that whole tiles leave over, take another path in a plain run.
            close = torch.finfo(dtype).eps if dtype == torch.bfloat16 else logit_unit(p)
            assert_within(result.out, plain.out, close, UNITS, "out")
            assert_within(result.lse, plain.lse, logit_unit(p), UNITS, "lse")
            W = exact_weights(p)[0]
            exact = expected(W, Cells(edges(0, length, 1), edges(0, keys, 1)))
            for name in ("entropy", "maximum", "squares", "mass", "best"):
                assert_within(getattr(actual, name), getattr(exact, name), logit_unit(p), UNITS, name)
            assert_within(W.gather(-1, actual.best_keys), exact.best, logit_unit(p), UNITS, "best keys")


@pytest.mark.parametrize("scale", [0.0, -0.5, 90.0])
def test_statistics_of_the_forward_pass_at_other_scales(scale: float) -> None:
    """At scale 90 the first key raises the running maximum by more than a float32 exponent in log2 units can hold."""
    p = problem(29, 137, is_causal=True).change(scale=scale)
    actual = run_with(p, IN_FORWARD)[1]
    exact = expected(exact_weights(p)[0], Cells(edges(0, 29, 1), edges(0, 137, 1)))
    for name in ("entropy", "maximum", "squares", "mass", "best"):
        assert_within(getattr(actual, name), getattr(exact, name), logit_unit(p), UNITS, name)


def test_in_forward_pass_accepts_only_statistics_of_the_forward_pass() -> None:
    assert in_forward_pass(IN_FORWARD)
    assert not in_forward_pass(replace(IN_FORWARD, received=True))
    assert not in_forward_pass(replace(IN_FORWARD, distance=True))
