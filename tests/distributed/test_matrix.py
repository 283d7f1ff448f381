"""A sharded attention matrix answers as the whole one does."""

import pytest
import torch

import clearhead
from clearhead import distributed
from clearhead.errors import OptionError, ShapeError

from .cases import CASES, LENGTH, B, H, tensors
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
            close(matrix.pooled(5, 7), whole.pooled(5, 7), f"{name} pooled")
            part = distributed.shard(x, placement=placement)
            close(gathered(matrix @ part, -2), whole @ x, f"{name} product")
            part = distributed.shard(y, placement=placement)
            close(gathered(matrix.transposed_times(part), -2), whole.mT @ y, f"{name} transposed product")
            rollout = distributed.rollout([matrix, matrix], residual=0.3)
            part = distributed.shard(x[:, 0], placement=placement)
            expected = clearhead.rollout([whole, whole], residual=0.3) @ x[:, 0]
            close(gathered(rollout @ part, -2), expected, f"{name} rollout")
    with pytest.raises(OptionError, match="asks of rows of 48 keys"):
        matrix.topk(LENGTH + 1)
    with pytest.raises(ShapeError, match="this rank holds"):
        matrix @ torch.zeros(LENGTH + 1, 2)
    with pytest.raises(OptionError, match="at least one matrix"):
        distributed.rollout([])


def test_answers_are_those_of_the_whole_matrix():
    world(2, answers, ["causal", "soft cap and sinks", "documents"])


@pytest.mark.stress
@pytest.mark.parametrize("size", [1, 3, 4])
def test_answers_of_every_case(size):
    world(size, answers, [name for name in CASES if name != "relative"])
