"""q, k, v and z of a matrix, with grouped heads; the weight of an output projection in both of its forms."""

import pytest
import torch

from clearhead import AttentionMatrix
from clearhead.errors import OptionError, ShapeError

B, H, L, S, D, W, E = 2, 6, 5, 7, 4, 3, 11


def made(kv_heads, dtype=torch.float32, **options):
    make = torch.Generator().manual_seed(kv_heads)
    sizes = ((B, H, L, D), (B, kv_heads, S, D), (B, kv_heads, S, W))
    q, k, v = (torch.randn(size, generator=make, dtype=torch.float64).to(dtype) for size in sizes)
    return q, k, v, AttentionMatrix(q, k, value=v, **options)


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_z_is_the_output_of_each_head(kv_heads, dtype):
    q, k, v, A = made(kv_heads, dtype, is_causal=True)
    group = H // kv_heads
    logits = q.double() @ k.double().repeat_interleave(group, 1).mT / D**0.5
    logits = logits.masked_fill(~torch.ones(L, S, dtype=torch.bool).tril(), -torch.inf)
    expected = logits.softmax(-1) @ v.double().repeat_interleave(group, 1)
    bound = 8 * torch.finfo(dtype).eps * float(v.double().abs().max())
    assert A.z.shape == (B, H, L, W)
    assert A.z.dtype == dtype
    assert float((A.z.double() - expected).abs().max()) <= bound


def test_q_k_and_v_are_the_given_tensors_with_their_grouping():
    q, k, v, A = made(2)
    assert A.q is q
    assert A.k is k
    assert A.v is v
    for head in range(H):
        assert torch.equal(A.per_query_head(A.v)[:, head], v[:, head // 3])
        assert torch.equal(A.per_query_head(A.k)[:, head], k[:, head // 3])


def test_parts_of_a_matrix_have_parts_of_its_tensors():
    _, _, _, A = made(2)
    torch.testing.assert_close(A.heads([4, 1]).z, A.z[:, [4, 1]])
    torch.testing.assert_close(A.rows(1, 3).z, A.z[:, :, 1:3])


def test_without_values_there_is_no_z():
    q, k, _, _ = made(2)
    A = AttentionMatrix(q, k)
    assert A.v is None
    with pytest.raises(OptionError, match="values=True"):
        _ = A.z


def test_a_tensor_with_another_number_of_heads_is_refused():
    _, _, _, A = made(2)
    with pytest.raises(ShapeError, match="H_kv dividing 6"):
        A.per_query_head(torch.zeros(B, 4, S, D))


@pytest.mark.parametrize("kv_heads", [2, 6])
def test_value_weighted_accepts_the_weight_of_a_linear_layer(kv_heads):
    _, _, v, A = made(kv_heads)
    layer = torch.nn.Linear(H * W, E)
    parts = layer.weight.detach().T.reshape(H, W, E)
    norms = torch.einsum("bhsw,hwe->bhse", v.repeat_interleave(H // kv_heads, 1), parts).norm(dim=-1)
    expected = A.to_dense() * norms[:, :, None]
    torch.testing.assert_close(A.value_weighted(out_weight=layer.weight.detach()).to_dense(), expected)
    torch.testing.assert_close(A.value_weighted(out_weight=parts).to_dense(), expected)


def test_a_weight_of_another_shape_is_refused_with_both_accepted_shapes():
    _, _, _, A = made(2)
    with pytest.raises(ShapeError, match=r"\(18, 11\), expected \(E, 18\).*H=6, D_v=3.*c_proj.weight.T"):
        A.value_weighted(out_weight=torch.zeros(H * W, E))
