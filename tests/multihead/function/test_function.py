"""clearhead.attention compared with torch's scaled_dot_product_attention and the float64 reference."""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import clearhead
import reference
from clearhead import masks

B, H, L, S, D, E = 2, 3, 5, 7, 11, 13


def test_arguments_order_and_defaults_are_torchs():
    text = F.scaled_dot_product_attention.__doc__.split("->")[0]
    stock = [part.strip() for part in text[text.index("(") + 1 : text.rindex(")")].split(",")]
    parameters = list(inspect.signature(clearhead.attention).parameters.values())
    ours = [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters]
    assert ours[: len(stock)] == stock
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[len(stock) :])


RANKS = {
    "2": [(L, D), (S, D), (S, E)],
    "3": [(B, L, D), (B, S, D), (B, S, E)],
    "4": [(B, H, L, D), (B, H, S, D), (B, H, S, E)],
    "5": [(2, B, H, L, D), (2, B, H, S, D), (2, B, H, S, E)],
    "6": [(1, 2, B, H, L, D), (1, 2, B, H, S, D), (1, 2, B, H, S, E)],
    "one query batch": [(1, H, L, D), (B, H, S, D), (B, H, S, E)],
    "one key batch": [(B, H, L, D), (1, H, S, D), (1, H, S, E)],
    "one key head": [(B, H, L, D), (B, 1, S, D), (B, 1, S, E)],
    "one query head": [(B, 1, L, D), (B, H, S, D), (B, H, S, E)],
    "3 and 4 axes": [(H, L, D), (B, H, S, D), (B, H, S, E)],
    "4 and 3 axes": [(B, H, L, D), (H, S, D), (H, S, E)],
    "2 and 4 axes": [(L, D), (B, H, S, D), (S, E)],
    "no batch entries": [(0, H, L, D), (0, H, S, D), (0, H, S, E)],
    "no queries": [(B, H, 0, D), (B, H, S, D), (B, H, S, E)],
    "no keys": [(B, H, L, D), (B, H, 0, D), (B, H, 0, E)],
    "no width": [(B, H, L, 0), (B, H, S, 0), (B, H, S, E)],
    "no value width": [(B, H, L, D), (B, H, S, D), (B, H, S, 0)],
    "one of each": [(1, 1, 1, 1)] * 3,
}


@pytest.mark.parametrize("ranks", RANKS)
def test_every_rank_and_broadcast_that_torch_accepts(ranks):
    torch.manual_seed(0)
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in RANKS[ranks]]
    full = (*torch.broadcast_shapes(*(t.shape[:-2] for t in tensors)), tensors[0].shape[-2], tensors[1].shape[-2])
    options = [{}, {"is_causal": True}, {"scale": -0.3}]
    options += [{"attn_mask": torch.randn(full[-2:], dtype=torch.float64)}]
    if len(full) > 2:
        options += [{"attn_mask": torch.randn(full[-3], 1, full[-1], dtype=torch.float64)}]
    if len(full) == 4:
        options += [{"attn_mask": torch.randn(full[0], 1, *full[-2:], dtype=torch.float64)}]
    for option in options:
        ours, theirs = clearhead.attention(*tensors, **option), F.scaled_dot_product_attention(*tensors, **option)
        torch.testing.assert_close(ours, theirs)
        if ours.numel():
            grads = (torch.autograd.grad(out.square().sum(), tensors, allow_unused=True) for out in (ours, theirs))
            for mine, stock in zip(*grads, strict=True):
                torch.testing.assert_close(mine, torch.zeros_like(mine) if stock is None else stock)
        _, lse, matrix = clearhead.attention(*tensors, **option, return_lse=True, return_matrix=True)
        assert lse.shape == full[:-1]
        assert lse.dtype == torch.float64
        assert tuple(matrix.shape)[-2:] == full[-2:]
        assert math.prod(matrix.shape) == math.prod(full)


def test_five_axes_with_masks_of_every_outer_shape():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, H, n, D, dtype=torch.float64) for n in (L, S, S))
    for outer in ((), (1,), (H,), (3, 1), (1, H), (3, H), (2, 1, 1), (1, 3, 1), (2, 3, H), (1, 1, 1)):
        mask = torch.rand(*outer, L, S) > 0.3
        mask[..., 0] = True
        torch.testing.assert_close(
            clearhead.attention(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, mask), msg=str(outer)
        )


@pytest.mark.parametrize("heads", [(6, 3, 3), (6, 1, 1), (6, 3, 2), (6, 6, 2)])
def test_grouped_heads_are_repeated_heads(heads):
    q, k, v = (
        torch.randn(B, h, n, d, dtype=torch.float64) for h, n, d in zip(heads, (L, S, S), (D, D, E), strict=True)
    )
    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    torch.testing.assert_close(clearhead.attention(q, k, v, enable_gqa=True), expected)
    torch.testing.assert_close(clearhead.attention(q[0], k[0], v[0], enable_gqa=True), expected[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_softcap_sinks_and_masks_together_equal_the_reference(dtype):
    torch.manual_seed(0)
    q, k, v = (torch.randn(B, H, n, d).to(dtype) for n, d in ((L, D), (S, D), (S, E)))
    bias, sinks = torch.randn(H, L, S).to(dtype), torch.randn(H).to(dtype)
    out, lse = clearhead.attention(q, k, v, bias, scale=0.7, softcap=2.0, sinks=sinks, return_lse=True)
    expected, expected_lse = reference.attention(q, k, v, bias=bias, scale=0.7, softcap=2.0, sinks=sinks)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 2e-2)
    torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(lse.double(), expected_lse, atol=tolerance, rtol=tolerance)
    assert lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_a_row_that_may_attend_nothing_is_zero_with_zero_gradients():
    q, k, v = (torch.randn(B, H, n, d, requires_grad=True) for n, d in ((L, D), (S, D), (S, E)))
    allow = torch.rand(L, S) > 0.4
    allow[2] = False
    for mask in (allow, torch.zeros(L, S).masked_fill(~allow, -torch.inf).requires_grad_(), masks.from_dense(allow)):
        out, lse, matrix = clearhead.attention(q, k, v, mask, return_lse=True, return_matrix=True)
        assert out[:, :, 2].eq(0).all()
        assert lse[:, :, 2].eq(-torch.inf).all()
        assert matrix.to_dense()[:, :, 2].eq(0).all()
        leaves = [q, k, v, *([mask] if isinstance(mask, torch.Tensor) and mask.requires_grad else [])]
        for grad in torch.autograd.grad(out.sum(), leaves):
            assert grad.isfinite().all()


def test_strided_inputs_are_read_in_place():
    packed = torch.randn(B, L, 3, H, D, requires_grad=True)
    q, k, v = packed.permute(2, 0, 3, 1, 4)
    actual = clearhead.attention(q, k, v)
    expected = F.scaled_dot_product_attention(*(t.contiguous() for t in (q, k, v)))
    torch.testing.assert_close(actual, expected)
    grads = [torch.autograd.grad(out.cos().sum(), packed)[0] for out in (actual, expected)]
    torch.testing.assert_close(*grads)
    reversed_axis = torch.randn(B, H, D, L).transpose(2, 3)  # the last axis is not contiguous
    torch.testing.assert_close(
        clearhead.attention(reversed_axis, k, v), F.scaled_dot_product_attention(reversed_axis, k, v)
    )


def test_dropout_drops_and_scales_weights_and_follows_the_seed():
    q, k = torch.zeros(1, 1, 400, 8), torch.zeros(1, 1, 50, 8)
    v = torch.eye(50)[None, None]  # so that the output is the weights
    torch.manual_seed(5)
    weights = clearhead.attention(q, k, v, dropout_p=0.3)
    assert weights.unique().tolist() == pytest.approx([0.0, 1 / 50 / 0.7])
    assert (weights == 0).float().mean() == pytest.approx(0.3, abs=0.02)
    torch.manual_seed(5)
    assert torch.equal(clearhead.attention(q, k, v, dropout_p=0.3), weights)
    assert not torch.equal(clearhead.attention(q, k, v, dropout_p=0.3), weights)
    leaf = v.clone().requires_grad_()
    torch.manual_seed(5)
    clearhead.attention(q, k, leaf, dropout_p=0.3).sum().backward()
    torch.testing.assert_close(leaf.grad[0, 0], weights[0, 0].sum(0)[:, None].expand(50, 50))
    assert clearhead.attention(q, k, v, dropout_p=1.0).eq(0).all()


def test_without_masks_no_l_by_s_tensor_is_allocated():
    from torch.utils._python_dispatch import TorchDispatchMode

    length = 600
    seen = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            seen.extend(t.numel() for t in torch.utils._pytree.tree_leaves(result) if isinstance(t, torch.Tensor))
            return result

    q, k, v = torch.randn(3, 1, 1, length, 4)
    with Sizes():
        clearhead.attention(q, k, v, is_causal=True)
    assert 0 < max(seen) < length * length / 4


shapes = st.tuples(st.integers(1, 3), st.sampled_from([1, 2]), st.integers(1, 6), st.integers(1, 9), st.integers(1, 5))


@settings(max_examples=25)
@given(shapes, st.integers(0, 2**31), st.booleans())
def test_weights_of_nonempty_rows_sum_to_one(shape, seed, causal):
    batch, heads, length, keys, width = shape
    torch.manual_seed(seed)
    q, k = torch.randn(batch, heads, length, width), torch.randn(batch, heads, keys, width)
    allow = torch.rand(batch, 1, length, keys) > 0.5
    mask = masks.from_dense(allow) & masks.causal() if causal else allow
    out, lse = clearhead.attention(q, k, torch.ones(batch, heads, keys, 1), mask, return_lse=True)
    empty = lse == -torch.inf
    torch.testing.assert_close(out[..., 0], 1.0 - empty.float())


@settings(max_examples=25)
@given(shapes, st.integers(0, 2**31))
def test_the_order_of_keys_does_not_matter(shape, seed):
    batch, heads, length, keys, width = shape
    torch.manual_seed(seed)
    q, k, v = (torch.randn(batch, heads, n, width) for n in (length, keys, keys))
    bias, order = torch.randn(length, keys), torch.randperm(keys)
    torch.testing.assert_close(
        clearhead.attention(q, k[:, :, order], v[:, :, order], bias[:, order]),
        clearhead.attention(q, k, v, bias), atol=1e-5, rtol=1e-4,
    )  # fmt: skip


@settings(max_examples=25)
@given(shapes, st.integers(0, 2**31), st.integers(0, 9))
def test_two_halves_of_the_keys_merge_by_lse(shape, seed, cut):
    batch, heads, length, keys, width = shape
    cut = min(cut, keys)
    torch.manual_seed(seed)
    q, k, v = (torch.randn(batch, heads, n, width) for n in (length, keys, keys))
    whole, lse = clearhead.attention(q, k, v, return_lse=True)
    parts = [
        clearhead.attention(q, *(t[:, :, s] for t in (k, v)), return_lse=True) for s in (slice(cut), slice(cut, None))
    ]
    joint = torch.logaddexp(parts[0][1], parts[1][1])
    torch.testing.assert_close(joint, lse)
    torch.testing.assert_close(sum(out * (part - joint).exp()[..., None] for out, part in parts), whole)


@settings(max_examples=15)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 13), st.integers(0, 2**31))
def test_a_window_equals_its_dense_mask(length, keys, size, seed):
    torch.manual_seed(seed)
    q, k, v = (torch.randn(1, 2, n, 4) for n in (length, keys, keys))
    i, j = torch.arange(length)[:, None], torch.arange(keys)
    dense = (j <= i) & (i - j < size)
    rule = masks.causal() & masks.sliding_window(size)
    torch.testing.assert_close(clearhead.attention(q, k, v, rule), clearhead.attention(q, k, v, dense))


@settings(max_examples=15)
@given(st.sampled_from([(2, 1), (4, 2), (6, 3), (6, 2)]), st.integers(0, 2**31))
def test_grouped_heads_of_random_sizes_are_repeated_heads(heads, seed):
    torch.manual_seed(seed)
    q, k, v = (torch.randn(1, h, n, 4) for h, n in zip((heads[0], heads[1], heads[1]), (3, 5, 5), strict=True))
    repeated = [t.repeat_interleave(heads[0] // heads[1], 1) for t in (k, v)]
    torch.testing.assert_close(clearhead.attention(q, k, v, enable_gqa=True), clearhead.attention(q, *repeated))
