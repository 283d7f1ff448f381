"""Statistics of a sharded attention matrix equal those of the whole one."""

import pytest
import torch

import clearhead
from clearhead import distributed
from clearhead.errors import ClearheadError, DtypeError, OptionError, PlaceError, RanksError, ShapeError

from .cases import CASES, LENGTH, B, E, H, tensors
from .world import world


def close(actual, expected, name):
    assert torch.allclose(actual.double(), expected.double(), rtol=1e-5, atol=1e-5), name


def answers(rank, size, names):
    x = torch.randn(B, 1, LENGTH, 3, generator=torch.Generator().manual_seed(3))
    y = torch.randn(B, H, LENGTH, 2, generator=torch.Generator().manual_seed(4))
    for name in names:
        for placement in ("contiguous", "zigzag"):
            inputs = [tensor.detach() for tensor in tensors(torch.float32)]
            options = CASES[name].options(torch.float32)
            own = [distributed.shard(tensor, placement=placement) for tensor in inputs]
            call = {"enable_gqa": True, "return_matrix": True, **options}
            with torch.no_grad():
                _, whole = clearhead.attention(*inputs, **call)
                _, matrix = distributed.attention(*own, placement=placement, **call)

            def gathered(answer, dim=-1, placement=placement):
                return distributed.gather(answer, dim, placement=placement)

            assert matrix.shape == whole.shape
            close(gathered(matrix.entropy()), whole.entropy(), f"{name} entropy")
            close(gathered(matrix.maximum()), whole.maximum(), f"{name} maximum")
            close(gathered(matrix.mean_distance()) / LENGTH, whole.mean_distance() / LENGTH, f"{name} distance")
            close(gathered(matrix.received()), whole.received(), f"{name} received")
            values, keys = (gathered(part, -2) for part in matrix.topk(3))
            close(values, whole.topk(3)[0], f"{name} topk")
            picked = whole.to_dense().gather(-1, keys).double()
            close(picked, values, f"{name} keys of topk")
            rows = {
                "effective_keys": lambda m: m.effective_keys(),
                "mean_distance": lambda m: m.mean_distance(offset=-3) / LENGTH,
                "distance_spread": lambda m: m.distance_spread(offset=2) / LENGTH,
                "mass_within": lambda m: m.mass_within(5, offset=1),
                "mass_on": lambda m: m.mass_on([0, 1, 13, 37, -1]),
                "mass_where": lambda m: m.mass_where(lambda batch, i, j: (i[:, None] + 2 * j + batch) % 3 == 0),
                "visible": lambda m: m.visible(),
            }
            for question, ask in rows.items():
                close(gathered(ask(matrix)), ask(whole), f"{name} {question}")
            close(gathered(matrix.inner(matrix)), whole.inner(whole), f"{name} inner")
            close(gathered(matrix.kl(matrix)), whole.kl(whole), f"{name} kl")
            upstream = torch.randn(B, H, LENGTH, E, generator=torch.Generator().manual_seed(6))
            part = distributed.shard(upstream, placement=placement)
            close(gathered(matrix.gradient_times(part)), whole.gradient_times(upstream), f"{name} gradient times")
            close(matrix.pooled(5, 7), whole.pooled(5, 7), f"{name} pooled")
            part = distributed.shard(x, placement=placement)
            close(gathered(matrix @ part, -2), whole @ x, f"{name} product")
            part = distributed.shard(y, placement=placement)
            close(gathered(matrix.mT @ part, -2), whole.mT @ y, f"{name} transposed product")
            rollout = distributed.rollout([matrix, matrix], residual=0.3)
            part = distributed.shard(x[:, 0], placement=placement)
            expected = clearhead.rollout([whole, whole], residual=0.3) @ x[:, 0]
            close(gathered(rollout @ part, -2), expected, f"{name} rollout")
    with pytest.raises(OptionError, match="of rows of 48 keys"):
        matrix.topk(LENGTH + 1)
    with pytest.raises(ShapeError, match="this rank holds"):
        matrix @ torch.zeros(LENGTH + 1, 2)
    with pytest.raises(OptionError, match="no matrices"):
        distributed.rollout([])


@pytest.mark.slow
def test_statistics_equal_those_of_the_whole_matrix():
    world(2, answers, ["causal", "soft cap and sinks", "documents"])


@pytest.mark.stress
@pytest.mark.parametrize("size", [1, 3, 4])
def test_statistics_of_every_case(size):
    world(size, answers, [name for name in CASES if name != "relative"])


def comparisons(rank, size):
    """Compare two matrices with one mask in every placement; other masks and placements are refused on every rank."""
    first, second = (
        [tensor.detach() for tensor in tensors(torch.float32, seed)] for seed in (0, 1)
    )  # fmt: skip
    call = {"enable_gqa": True, "return_matrix": True}
    made = {}
    for placement in ("contiguous", "zigzag"):
        for options in ({}, {"is_causal": True}, {"is_causal": True, "softcap": 2.0}):
            whole = [clearhead.attention(*inputs, **call, **options)[1] for inputs in (first, second)]
            cut = [[distributed.shard(t, placement=placement) for t in inputs] for inputs in (first, second)]
            own = [distributed.attention(*i, placement=placement, **call, **options)[1] for i in cut]
            for name in ("kl", "inner"):
                answer = distributed.gather(getattr(own[0], name)(own[1]), -1, placement=placement)
                close(answer, getattr(whole[0], name)(whole[1]), f"{placement} {options} {name}")
            made[placement, len(options)] = own[0]
    for other in (made["zigzag", 0], made["contiguous", 1]):
        with pytest.raises(ShapeError, match="shape, placement and band must be the same"):
            made["contiguous", 0].kl(other)


@pytest.mark.stress
@pytest.mark.parametrize("size", [2, 3])
def test_two_sharded_matrices_are_compared(size):
    world(size, comparisons)


ONES = torch.ones(1, LENGTH // 2, 2)
WRONG = [
    ("topk", OptionError, lambda m: m.topk(LENGTH + 1), lambda m: m.topk(2)),
    ("topk", OptionError, lambda m: m.topk(0), lambda m: m.topk(2)),
    ("product", ShapeError, lambda m: m @ torch.zeros(3, 2), lambda m: m @ torch.zeros(LENGTH // 2, 2)),
    ("product", TypeError, lambda m: m @ torch.zeros(LENGTH // 2, 2).long(), lambda m: m @ torch.zeros(LENGTH // 2, 2)),
    ("transpose", ShapeError, lambda m: m.mT @ torch.zeros(3, 2), lambda m: m.mT @ torch.zeros(LENGTH // 2, 2)),
    ("pooled", OptionError, lambda m: m.pooled(0, 2), lambda m: m.pooled(1, 2)),
    ("pooled", OptionError, lambda m: m.pooled(2, 2, reduce="max"), lambda m: m.pooled(2, 2)),
    ("mass_on", PlaceError, lambda m: m.mass_on([LENGTH]), lambda m: m.mass_on([0])),
    ("mass_within", OptionError, lambda m: m.mass_within(-1), lambda m: m.mass_within(1)),
    ("rollout", DtypeError, lambda m: distributed.rollout([m]) @ None, lambda m: distributed.rollout([m]) @ ONES),
    ("rollout", ShapeError, lambda m: distributed.rollout([m]) @ ONES[0, 0], lambda m: distributed.rollout([m]) @ ONES),
    ("product", DtypeError, lambda m: m @ [1.0], lambda m: m @ ONES),
    (
        "gradient_times",
        DtypeError,
        lambda m: m.gradient_times(None),
        lambda m: m.gradient_times(torch.zeros(B, H, LENGTH // 2, E)),
    ),
    ("kl", OptionError, lambda m: m.kl(None), lambda m: m.kl(m)),
    ("inner", OptionError, lambda m: m.inner(m.entropy), lambda m: m.inner(m)),
]
DIFFERENT = [
    (lambda m: m.entropy(), lambda m: m.maximum()),
    (lambda m: m.topk(2), lambda m: m.topk(3)),
    (lambda m: m.pooled(2, 3), lambda m: m.pooled(3, 2)),
    (lambda m: m @ torch.zeros(LENGTH // 2, 2), lambda m: m @ torch.zeros(LENGTH // 2, 3)),
    (lambda m: m @ torch.zeros(LENGTH // 2, 2), lambda m: m @ torch.zeros(LENGTH // 2, 2).double()),
    (lambda m: m.received(), lambda m: m.entropy()),
]


def wrong_calls(rank, size):
    own = [distributed.shard(tensor.detach()) for tensor in tensors(torch.float32)]
    _, matrix = distributed.attention(*own, enable_gqa=True, return_matrix=True)
    for name, error, wrong, right in WRONG:
        with pytest.raises(ClearheadError) as raised:
            (wrong if rank else right)(matrix)
        if rank:
            assert isinstance(raised.value, error), name
        else:
            assert isinstance(raised.value, RanksError), name
            assert "rank 1 refused its own call" in str(raised.value), name
    for ask, other in DIFFERENT:
        with pytest.raises(RanksError, match="on every rank"):
            (other if rank else ask)(matrix)
    for name in ("to_dense", "heads", "mean_heads", "value_weighted", "diagonal", "allowed"):
        with pytest.raises(
            AttributeError, match=f"{name} is not supported across ranks, because no rank holds all keys"
        ):
            getattr(matrix, name)
    with pytest.raises(OptionError, match="is not supported across ranks"):
        matrix[0, 0, 3]
    with pytest.raises(AttributeError, match="has no attribute 'entropie'"):
        matrix.entropie()
    assert (matrix.dtype, matrix.device.type, matrix.mT.shape) == (torch.float32, "cpu", (B, H, LENGTH, LENGTH))
    assert torch.isfinite(matrix.entropy()).all()  # the ranks can go on


def test_a_wrong_call_on_one_rank_is_an_error_on_all():
    world(2, wrong_calls)
