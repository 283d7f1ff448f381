"""The errors of AttentionMatrix."""

import pytest
import torch

from clearhead.errors import DtypeError, OptionError, PlaceError, ShapeError, TooLargeError
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


@pytest.mark.parametrize("shape", [(), (23,), (23, 2), (5, 31, 2), (3, 6, 31, 2), (1, 2, 6, 31, 2)])
def test_operands_that_do_not_fit(shape: tuple[int, ...]):
    with pytest.raises(ShapeError, match=r"\(2, 6, 23, 31\), axes B,H,L,S.*S=31"):
        Case().matrix() @ torch.ones(shape)


def test_an_operand_that_is_not_a_floating_point_tensor():
    with pytest.raises(DtypeError, match="int64"):
        Case().matrix() @ torch.ones(31, dtype=torch.int64)
    with pytest.raises(ShapeError, match="L=23"):
        Case().matrix().mT @ torch.ones(31)


def test_a_condition_that_does_not_return_pairs() -> None:
    matrix = AttentionMatrix(*torch.randn(2, 1, 2, 5, 3))
    with pytest.raises(ShapeError, match=r"shape \(2, 3\) for 5 rows and 5 keys, expected \(5, 5\)"):
        matrix.mass_where(lambda _batch, _rows, _keys: torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(DtypeError, match=r"where returned torch\.int64, expected a boolean"):
        matrix.mass_where(lambda _batch, rows, keys: rows[:, None] - keys)
    with pytest.raises(DtypeError, match="where returned a bool"):
        matrix.mass_where(lambda _batch, _rows, _keys: True)
    assert torch.equal(matrix.mass_where(lambda _batch, _rows, keys: keys < 2), matrix.mass_on([0, 1]))


def test_options_out_of_range():
    for k in (0, 32):
        with pytest.raises(OptionError, match=rf"topk\(k={k}\) of rows of 31 keys"):
            Case().matrix().topk(k)
    with pytest.raises(OptionError, match="at least one cell"):
        Case().matrix().pooled(0, 3)


@pytest.mark.parametrize(("key", "message"), [((2, 0), r"batch=2 .* size 2"), ((-3,), "batch=-3"), ((0, 1), "head=1")])
def test_an_index_outside_the_mean_over_heads(key: tuple[int, ...], message: str):
    with pytest.raises(PlaceError, match=message):
        Case().matrix().mean_heads()[key]


def test_the_limit_of_the_dense_mean_is_that_of_the_dense_matrix():
    mean = Case().matrix().mean_heads()
    with pytest.raises(TooLargeError, match="the limit is 99 bytes"):
        mean.to_dense(limit=99)
    mean._matrix.to_dense = lambda *, limit: torch.full((1, 2, 1, 1), 1.0 if limit is None else 0.0)
    assert mean.to_dense(limit=None).item() == 1.0
