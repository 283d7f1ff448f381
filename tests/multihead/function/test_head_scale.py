"""`scale` as a tensor of shape (H,): one logit multiplier per query head, as in QK-norm and several models."""

import pytest
import torch

import clearhead
import reference
from clearhead import AttentionMatrix, observe
from clearhead.errors import ShapeError
from clearhead.matrix import load, save

B, H, H_KV, L, S, D, E = 2, 6, 3, 17, 23, 5, 7
EPS = torch.finfo(torch.float32).eps


def inputs(dtype=torch.float32, learning=False):
    make = torch.Generator().manual_seed(4)
    shapes = ((B, H, L, D), (B, H_KV, S, D), (B, H_KV, S, E), (H,))
    return [
        torch.randn(shape, generator=make, dtype=torch.float64).to(dtype).requires_grad_(learning) for shape in shapes
    ]


def exact(q, k, v, scale):
    return reference.attention(q, k, v, scale=scale.double()[:, None, None])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kernel", [None, "native", "torch", "reference"])
def test_output_and_lse_equal_the_reference(kernel, dtype):
    if kernel == "native" and not clearhead.kernels.targets():
        pytest.skip("the native library was not built on this machine")
    q, k, v, scale = inputs(dtype)
    out, lse = clearhead.attention(q, k, v, scale=scale, enable_gqa=True, return_lse=True, kernel=kernel)
    expected, expected_lse = exact(q, k, v, scale)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), expected, rtol=8 * eps, atol=16 * eps)
    torch.testing.assert_close(lse.double(), expected_lse, rtol=8 * max(eps, EPS / 2**20), atol=16 * max(eps, 1e-12))


@pytest.mark.parametrize("kernel", [None, "torch"])
def test_gradients_flow_to_the_scale(kernel):
    tensors = inputs(torch.float64, learning=True)

    def function(q, k, v, scale):
        return clearhead.attention(q, k, v, scale=scale, enable_gqa=True, softcap=3.0, return_lse=True, kernel=kernel)

    assert torch.autograd.gradcheck(function, tensors, fast_mode=True)


def test_equal_scales_equal_a_number():
    q, k, v, _ = inputs()
    same = clearhead.attention(q, k, v, scale=torch.full((H,), 0.3), enable_gqa=True)
    torch.testing.assert_close(same, clearhead.attention(q, k, v, scale=0.3, enable_gqa=True))


def test_the_matrix_its_statistics_and_a_saved_file(tmp_path):
    q, k, v, scale = inputs()
    out, matrix = clearhead.attention(q, k, v, scale=scale, enable_gqa=True, return_matrix=True)
    weights = torch.softmax((q.double() * scale.double()[:, None, None]) @ k.double().repeat_interleave(2, 1).mT, -1)
    torch.testing.assert_close(matrix.to_dense().double(), weights, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(matrix.entropy().double(), torch.special.entr(weights).sum(-1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(matrix.received().double(), weights.sum(2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(matrix @ v.repeat_interleave(2, 1), out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((matrix.mT @ out).double(), weights.mT @ out.double(), rtol=1e-4, atol=1e-5)
    save(matrix, tmp_path / "a")
    assert torch.equal(load(tmp_path / "a")[""].to_dense(), matrix.to_dense())
    own = AttentionMatrix(q, k, scale=scale)
    eps = torch.finfo(torch.float32).eps  # their lse come from different passes
    torch.testing.assert_close(own.to_dense(), matrix.to_dense(), rtol=8 * eps, atol=eps)


class Model(torch.nn.Module):
    def forward(self, q, k, v, scale):
        return clearhead.attention(q, k, v, scale=scale, enable_gqa=True)


def test_observe_records_it():
    q, k, v, scale = inputs()
    model = Model()
    with observe(model) as record:
        model(q, k, v, scale)
    assert record.missed == []
    expected = torch.softmax((q * scale[:, None, None]) @ k.repeat_interleave(2, 1).mT, -1)
    torch.testing.assert_close(record[""].to_dense(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_compile_and_vmap_equal_eager():
    q, k, v, scale = inputs(learning=True)
    compiled = torch.compile(Model(), backend="aot_eager", fullgraph=True)
    expected = Model()(q, k, v, scale)
    out = compiled(q, k, v, scale)
    torch.testing.assert_close(out, expected)
    grads = torch.autograd.grad(out.square().sum(), (q, k, v, scale))
    for ours, theirs in zip(grads, torch.autograd.grad(expected.square().sum(), (q, k, v, scale)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    many = torch.randn(3, B, H, L, D)
    mapped = torch.func.vmap(lambda query: Model()(query, k.detach(), v.detach(), scale.detach()))(many)
    torch.testing.assert_close(mapped, torch.stack([Model()(x, k, v, scale).detach() for x in many]))


@pytest.mark.parametrize("scale", [torch.ones(3), torch.ones(H, 1), torch.ones(H, dtype=torch.int64)])
def test_another_shape_is_refused(scale):
    q, k, v, _ = inputs()
    with pytest.raises(ShapeError, match=r"scale is torch.*, expected a number, or one per query head, .*\(6,\)"):
        clearhead.attention(q, k, v, scale=scale, enable_gqa=True)
