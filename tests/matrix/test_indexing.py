"""A[...] equals torch's indexing of the dense matrix in shape, order and values."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clearhead.errors import PlaceError, TooLargeError
from clearhead.matrix import AttentionMatrix, indexing

from .cases import CASES, Case

T = torch.tensor
KEYS = {
    "entry": (1, 2, 3, 4),
    "row": (1, 2, 3),
    "head": (0, 5),
    "batch": 1,
    "everything": slice(None),
    "ellipsis": (..., 4),
    "ellipsis between": (1, ..., slice(2, 9)),
    "from the end": (-1, -2, -3, -4),
    "steps": (slice(None), slice(1, 6, 2), slice(20, None, 3), slice(None, 30, 7)),
    "no rows": (0, 0, slice(4, 4)),
    "backwards": (0, 0, slice(4, 2)),
    "list of rows": (0, 1, [7, 3, 3]),
    "list of keys": (0, 1, slice(2, 6), [7, 3, 30, -1]),
    "list of heads": (slice(None), [5, 0]),
    "tensor of two axes": (1, 0, T([[1, 2], [3, 4], [5, 6]])),
    "pairs": (0, 1, [1, 2, 3], [4, 5, 6]),
    "pairs far apart": ([0, 1], slice(None), [3, 4], slice(1, 3)),
    "crossing": (0, 1, T([[1], [2]]), T([[4, 5, 6]])),
    "new axis": (0, None, 1, slice(2, 4)),
    "mask of rows": (0, 1, torch.arange(23) % 3 == 0),
    "mask of two axes": (0, 1, (torch.arange(23)[:, None] + torch.arange(31)) % 5 == 0),
    "tensor of no axes": (T(1), T(2)),
    "int and a list": (0, slice(None), [1, 2], slice(3, 5)),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("name", ["plain", "mask", "sinks, softcap, bias, mask", "padding, causal, shared heads"])
def test_equals_the_dense_matrix(name: str, key: object):
    case = CASES[name]
    exact = case.dense(torch.float64)[0][key]
    ours = case.matrix(torch.float64)[key]
    assert ours.shape == exact.shape
    torch.testing.assert_close(ours, exact, rtol=1e-11, atol=1e-12)


def parts(size: int):
    ints = st.integers(-size, size - 1)
    ends = st.one_of(st.none(), st.integers(-size - 2, size + 2))
    return st.one_of(
        ints,
        st.builds(slice, ends, ends, st.one_of(st.none(), st.integers(1, 5))),
        st.lists(ints, min_size=1, max_size=4),
    )


@settings(max_examples=60)
@given(st.tuples(parts(2), parts(6), parts(23), parts(31)), st.integers(1, 4))
def test_any_index_equals_the_dense_matrix(key: tuple[object, ...], used: int):
    key = key[:used]
    dense, matrix = Case(kv_heads=3).dense(torch.float64)[0], Case(kv_heads=3).matrix(torch.float64)
    try:
        exact = dense[key]
    except IndexError:  # lists of lengths that do not broadcast
        with pytest.raises(PlaceError):
            matrix[key]
        return
    torch.testing.assert_close(matrix[key], exact, rtol=1e-11, atol=1e-12)


def test_gradients_reach_the_queries_through_a_slice():
    tensors = Case().tensors(torch.float64)
    query = tensors["query"].requires_grad_()
    AttentionMatrix(**tensors)[0, 1, [3, 5], 2:7].sum().backward()
    touched = query.grad.abs().sum(-1) > 0
    assert touched.nonzero().tolist() == [[0, 1, 3], [0, 1, 5]]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ((2, 0), "size 2"),
        ((0, 0, 0, 0, 0), "too many indices"),
        ((0, 0, [23]), "size 23"),
        ((0, "head"), "cannot be indexed"),
        ((0, 0, [1, 2], [1, 2, 3]), "shape (2, 6, 23, 31), axes B,H,L,S"),
        ((0, 0, 1.5), "integers"),
        ((0, 0, [1, 23], [1, 2]), "size 23"),
    ],
)
def test_a_wrong_index_is_refused_with_the_shape_of_the_matrix(key: object, message: str):
    with pytest.raises(PlaceError, match=message.replace("(", r"\(").replace(")", r"\)")):
        Case().matrix()[key]


def test_iterating_ends():
    assert [part.shape for part in Case().matrix()] == [(6, 23, 31)] * 2


@pytest.mark.slow
def test_a_result_above_the_limit_is_refused_with_its_size_and_the_remedy():
    q = torch.zeros(1, 8, 4096, 2)
    matrix = AttentionMatrix(q, q)
    with pytest.raises(TooLargeError, match=r"takes 512 MiB .* limit is 256 MiB.*to_dense\(limit=536870912\)"):
        matrix.to_dense()
    with pytest.raises(TooLargeError, match="Take fewer heads, rows or columns"):
        matrix[:]
    assert matrix[0, 0].shape == (4096, 4096)
    assert Case().matrix().to_dense(limit=None).shape == (2, 6, 23, 31)
    with pytest.raises(TooLargeError):
        Case().matrix().to_dense(limit=2 * 6 * 23 * 31 * 4 - 1)
    assert Case().matrix().to_dense(limit=2 * 6 * 23 * 31 * 4).dtype == torch.float32


def test_an_entry_of_a_long_matrix_computes_no_other_rows(monkeypatch):
    """With a known lse, other rows are not computed."""
    monkeypatch.setattr(indexing, "LIMIT", 1000)
    q = torch.randn(1, 1, 10**5, 4)
    matrix = AttentionMatrix(q, q, lse=torch.zeros(1, 1, 10**5))
    expected = (q[0, 0, 99_990] * q[0, 0, 5]).sum() / 2
    torch.testing.assert_close(matrix[0, 0, 99_990, 5], expected.exp())


@pytest.mark.parametrize("key", [(..., T([True, False])), (0, 1, torch.ones(22, 31) > 0), (None, T([True] * 3))])
def test_a_mask_of_another_size_than_its_axes_is_refused_as_in_torch(key) -> None:
    A = CASES["plain"].matrix()
    with pytest.raises(IndexError):
        A.to_dense()[key]
    with pytest.raises(PlaceError, match="a mask of shape"):
        A[key]


@pytest.mark.parametrize("name", CASES)
def test_the_whole_matrix_is_computed_for_all_heads_at_once(name: str, monkeypatch):
    A = CASES[name].matrix(torch.float64)
    alone = torch.stack(
        [torch.stack([A[b, h] for h in range(A.shape[1])]) for b in range(A.shape[0])]  # one head at a time
    )
    size = A.shape[1] * A.shape[2] * A.shape[3]
    for block in (size, A.shape[0] * size):  # one table per batch entry, and one for all
        with monkeypatch.context() as small:
            small.setattr(indexing, "BLOCK", block)
            small.setattr(type(A._wide), "block", None)  # `block` takes one head at a time: it must not be called
            torch.testing.assert_close(A.to_dense(), alone, rtol=1e-11, atol=1e-12)
