"""Axes of size 0 in every public function: torch's results, forward and backward."""

import itertools

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

import clearhead
from clearhead import masks

SIZES = {"B": 2, "H": 6, "H_kv": 3, "L": 5, "S": 7, "D": 11, "E": 13}
EMPTY = [{name} for name in SIZES if name != "H_kv"] + [
    {"H", "H_kv"},
    {"B", "L"},
    {"L", "S"},
    {"S", "D"},
    {"B", "H", "H_kv", "E"},
]


def inputs(empty: set[str], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    n = {name: 0 if name in empty else size for name, size in SIZES.items()}
    shapes = [
        (n["B"], n["H"], n["L"], n["D"]),
        (n["B"], n["H_kv"], n["S"], n["D"]),
        (n["B"], n["H_kv"], n["S"], n["E"]),
    ]
    return tuple(torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)


@pytest.mark.parametrize("empty", EMPTY, ids=lambda names: "+".join(sorted(names)))
def test_the_function_equals_torch(empty: set[str]) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        q, k, v = inputs(empty, dtype)
        shape = (q.shape[-2], k.shape[-2])
        for options in (
            {},
            {"is_causal": True},
            {"attn_mask": torch.ones(shape, dtype=torch.bool)},
            {"attn_mask": torch.zeros(shape, dtype=dtype)},
        ):
            expected = sdpa(q, k, v, enable_gqa=True, **options)
            grads = torch.autograd.grad(expected.sum(), (q, k, v))
            for kernel in (None, "torch", "reference"):
                out, lse = clearhead.attention(q, k, v, enable_gqa=True, return_lse=True, kernel=kernel, **options)
                torch.testing.assert_close(out, expected, atol=0.03, rtol=0.03)
                assert lse.shape == out.shape[:-1]
                torch.testing.assert_close(torch.autograd.grad(out.sum(), (q, k, v)), grads, atol=0.03, rtol=0.03)
            with torch.no_grad():
                assert clearhead.attention(q, k, v, enable_gqa=True, **options).shape == expected.shape


@pytest.mark.parametrize("empty", EMPTY, ids=lambda names: "+".join(sorted(names)))
def test_other_functions_and_the_matrix_return_the_right_shapes(empty: set[str]) -> None:
    q, k, v = inputs(empty, torch.float32)
    shape = (*q.shape[:3], v.shape[3])
    for method in ("straight_through", "gumbel", "reinforce"):
        out, index, log_prob = clearhead.hard_attention(
            q, k, v, enable_gqa=True, method=method, return_index=True, return_log_prob=True
        )
        assert (out.shape, index.shape, log_prob.shape) == (shape, shape[:3], shape[:3])
        (out.sum() + log_prob.sum()).backward()
    for rule in (
        masks.causal() & masks.sliding_window(2),
        masks.prefix(1) | masks.causal(),
        masks.alibi(torch.ones(shape[1])),
    ):
        out, matrix = clearhead.attention(q, k, v, rule, enable_gqa=True, dropout_p=0.5, return_matrix=True)
        out.sum().backward()
        assert out.shape == shape
    rows, keys = q.shape[2], k.shape[2]
    answers = (
        matrix.entropy(), matrix.maximum(), matrix.effective_keys(), matrix.mean_distance(), matrix.distance_spread(),
        matrix.visible(), matrix.mass_within(1), matrix.mass_on([]), matrix.kl(matrix), matrix.inner(matrix),
    )  # fmt: skip
    assert all(answer.shape == shape[:3] for answer in answers)
    assert matrix.received().shape == (*shape[:2], keys)
    assert matrix.to_dense().shape == (*shape[:3], keys)
    assert (matrix @ torch.ones(keys, 3)).shape == (*shape[:3], 3)
    assert (matrix.mT @ torch.ones(rows, 3)).shape == (*shape[:2], keys, 3)
    if keys:
        assert matrix.topk(1)[1].shape == (*shape[:3], 1)
    if shape[1] and keys:
        assert matrix.mean_heads().entropy().shape == (shape[0], 1, rows)


def test_no_query_heads_are_accepted_and_no_key_heads_refused() -> None:
    q, k = torch.randn(2, 0, 5, 11), torch.randn(2, 3, 7, 11)
    assert clearhead.attention(q, k, k, enable_gqa=True).shape == (2, 0, 5, 11)
    with pytest.raises(clearhead.errors.ShapeError, match="key has 0 heads, which does not divide query's 3"):
        clearhead.attention(k, q, q, enable_gqa=True)


@pytest.mark.parametrize("options", [{}, {"add_bias_kv": True}, {"num_kv_heads": 1, "rotary": True}], ids=str)
def test_the_module_equals_torch(options) -> None:
    layer = clearhead.MultiheadAttention(8, 2, batch_first=True, **options)
    stock = torch.nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv="add_bias_kv" in options)
    if "rotary" not in options:
        stock.load_state_dict(layer.state_dict())
    for batch, length, keys, need_weights in itertools.product((0, 2), (0, 3), (0, 5), (True, False)):
        x, y = torch.randn(batch, length, 8), torch.randn(batch, keys, 8)
        padding = torch.zeros(batch, keys, dtype=torch.bool)
        for mask in (None, torch.zeros(length, keys, dtype=torch.bool), torch.zeros(length, keys), masks.causal()):
            out, weights = layer(x, y, y, key_padding_mask=padding, attn_mask=mask, need_weights=need_weights)
            out.sum().backward()
            assert out.shape == x.shape
            if "rotary" not in options and not isinstance(mask, masks.Mask) and batch * keys:
                expected = stock(
                    x,
                    y,
                    y,
                    key_padding_mask=padding.float(),
                    attn_mask=None if mask is None else mask.float(),
                    need_weights=need_weights,
                )
                torch.testing.assert_close((out, weights), expected)


def test_varlen_cache_rotary_masks_and_rollout_return_the_right_shapes() -> None:
    out, lse = clearhead.attention_varlen(*[torch.randn(3, 2, 8)] * 3, torch.tensor([0, 0, 3, 3]), return_lse=True)
    assert (out.shape, lse.shape) == ((3, 2, 8), (3, 2))
    assert clearhead.attention_varlen(*[torch.randn(3, 0, 8)] * 3, torch.tensor([0, 3])).shape == (3, 0, 8)
    assert clearhead.attention_varlen(*[torch.randn(0, 2, 8)] * 3, torch.tensor([0])).shape == (0, 2, 8)
    for shape in ((0, 2, 3, 8), (2, 0, 3, 8), (2, 2, 0, 8)):
        x = torch.randn(shape)
        assert clearhead.Rotary(8)(x).shape == shape
        assert clearhead.KVCache(*shape[:2], 16, 8, window=5).append(x, x)[0].shape == shape
    none = torch.zeros(0, dtype=torch.long)
    x = torch.randn(0, 2, 3, 4)
    for rule in (
        masks.padding(none),
        masks.causal(none),
        masks.from_dense(torch.zeros(0, 2, 3, 3, dtype=torch.bool)),
        masks.document(torch.zeros(0, 3, dtype=torch.long)),
    ):
        assert rule.sizes()[0] == 0
        assert clearhead.attention(x, x, x, rule).shape == x.shape
        assert rule.dense(3, 3).shape == (0, rule.sizes()[1] or 1, 3, 3)
    with pytest.raises(clearhead.errors.ShapeError, match="B = 0, but the logits have B = 2"):
        clearhead.attention(*[torch.randn(2, 2, 3, 4)] * 3, masks.padding(none))
    assert (clearhead.rollout([clearhead.AttentionMatrix(x, x)]) @ torch.ones(3, 2)).shape == (0, 3, 2)
