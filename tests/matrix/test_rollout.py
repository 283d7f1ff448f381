"""rollout compared with the dense product of Abnar & Zuidema 2020."""

import pytest
import torch

from clearhead.errors import OptionError, ShapeError
from clearhead.matrix import rollout

from .cases import Case

LAYERS = [
    Case(length=19, keys=19, heads=2, kv_heads=2),
    Case(length=19, keys=19, heads=3, kv_heads=1, is_causal=True),
    Case(length=19, keys=19, heads=5, kv_heads=5, sinks=True),
]


def dense(residual: float) -> torch.Tensor:
    product = torch.eye(19, dtype=torch.float64)
    for case in LAYERS:
        layer = case.dense(torch.float64)[0].mean(1)
        product = (residual * torch.eye(19) + (1 - residual) * layer) @ product
    return product


@pytest.mark.parametrize("residual", [0.5, 0.0, 0.2])
def test_equals_the_dense_product(residual: float):
    ours = rollout([case.matrix(torch.float64) for case in LAYERS], residual=residual)
    exact = dense(residual)
    x = torch.randn(2, 19, 3, dtype=torch.float64)
    assert ours.shape == exact.shape
    torch.testing.assert_close(ours @ x, exact @ x)
    torch.testing.assert_close(ours @ x[0], exact @ x[0])
    torch.testing.assert_close(ours @ x[0, :, 0], exact @ x[0, :, 0])
    torch.testing.assert_close(ours.rows([3, 17]), exact[:, [3, 17]])


def test_matrices_that_are_not_a_stack_of_layers_are_refused():
    with pytest.raises(OptionError, match="no matrices"):
        rollout([])
    with pytest.raises(OptionError, match="residual is 1"):
        rollout([LAYERS[0].matrix()], residual=1)
    with pytest.raises(ShapeError, match="layer 1 has shape"):
        rollout([LAYERS[0].matrix(), Case().matrix()])
    with pytest.raises(ShapeError, match="L=19"):
        rollout([LAYERS[0].matrix()]) @ torch.ones(7)
