"""The errors of AttentionMatrix."""

import pytest
import torch

from clearhead.errors import DtypeError, OptionError, ShapeError
from clearhead.matrix import AttentionMatrix

from .cases import Case


def test_tensors_that_do_not_fit():
    q, k = torch.randn(2, 6, 5, 7), torch.randn(2, 6, 11, 7)
    with pytest.raises(ShapeError, match="head_dim 3"):
        AttentionMatrix(q, k[..., :3])
    with pytest.raises(ShapeError, match="4 heads"):
        AttentionMatrix(q, k[:, :4])
    with pytest.raises(DtypeError, match=r"torch\.bool"):
        AttentionMatrix(q, k, allow=torch.ones(5, 11))
    with pytest.raises(ShapeError, match="one number per row"):
        AttentionMatrix(q, k, lse=torch.zeros(2, 6, 11))
    with pytest.raises(ShapeError, match="expected 4"):
        AttentionMatrix(q[0], k[0])
    with pytest.raises(DtypeError):
        AttentionMatrix(q, k.double())


@pytest.mark.parametrize("shape", [(23,), (23, 2), (5, 31, 2), (3, 6, 31, 2), (1, 2, 6, 31, 2)])
def test_operands_that_do_not_fit(shape: tuple[int, ...]):
    with pytest.raises(ShapeError, match=r"\(2, 6, 23, 31\), axes B,H,L,S.*S=31"):
        Case().matrix() @ torch.ones(shape)


def test_an_operand_that_is_not_a_floating_point_tensor():
    with pytest.raises(DtypeError, match="int64"):
        Case().matrix() @ torch.ones(31, dtype=torch.int64)
    with pytest.raises(ShapeError, match="L=23"):
        Case().matrix().mT @ torch.ones(31)


def test_options_out_of_range():
    for k in (0, 32):
        with pytest.raises(OptionError, match=rf"topk\(k={k}\) of rows of 31 keys"):
            Case().matrix().topk(k)
    with pytest.raises(OptionError, match="at least one cell"):
        Case().matrix().pooled(0, 3)
