"""Clearhead's own attention under observe: it is recorded exactly, and its output stays the same bit for bit."""

import pytest
import torch
from torch import nn

import clearhead
from clearhead import masks
from clearhead.capture import observe

L, S, WIDTH = 7, 11, 5
SLOPES = torch.tensor([0.5, 0.25, 0.1, 0.05, 0.02, 0.01])


@pytest.fixture(autouse=True)
def still():
    with torch.no_grad():
        yield


class Own(nn.Module):
    """One call of `clearhead.attention`, with whatever it is given."""

    def __init__(self, **options) -> None:
        super().__init__()
        make = torch.Generator().manual_seed(3)
        heads = 3 if options.get("enable_gqa") else 6
        self.q = torch.randn(2, 6, L, WIDTH, generator=make)
        self.k, self.v = (torch.randn(2, heads, S, WIDTH, generator=make) for _ in range(2))
        self.options = options

    def forward(self, **more):
        return clearhead.attention(self.q, self.k, self.v, **{"enable_gqa": False, **self.options, **more})


make = torch.Generator().manual_seed(5)
OPTIONS = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "groups of heads": {"enable_gqa": True},
    "boolean mask": {"attn_mask": torch.rand(2, 1, L, S, generator=make) < 0.7},
    "float mask": {"attn_mask": torch.randn(L, S, generator=make)},
    "rows that see nothing": {"attn_mask": (torch.arange(L) % 3 > 0)[:, None].expand(L, S)},
    "padding": {"attn_mask": masks.padding([11, 4])},
    "window": {"attn_mask": masks.sliding_window(3)},
    "shifted causal": {"attn_mask": masks.causal(offset=4)},
    "document and causal": {"attn_mask": masks.causal(offset=4) & masks.padding([9, 6])},
    "alibi": {"attn_mask": masks.alibi(SLOPES)},
    "softcap": {"softcap": 0.7},
    "sinks": {"sinks": torch.randn(6, generator=make)},
    "softcap, sinks, groups, mask": {
        "softcap": 0.7,
        "sinks": torch.randn(6, generator=make),
        "enable_gqa": True,
        "attn_mask": torch.rand(L, S, generator=make) < 0.6,
    },
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_call_of_attention(name: str):
    model = Own(**OPTIONS[name])
    plain = model()
    with observe(model) as record:
        assert torch.equal(model(), plain)
    assert record.missed == []
    exact = model(return_matrix=True)[1].to_dense()
    torch.testing.assert_close(record[""].to_dense(), exact, rtol=0, atol=1e-6)


def test_a_rule_too_large_to_be_made_a_tensor(monkeypatch):
    monkeypatch.setattr("clearhead.kernels.calls.prepare.RULE_ENTRIES", 1)
    for rule in (
        masks.sliding_window(3) | masks.prefix(2),
        masks.alibi(SLOPES),
        masks.alibi(SLOPES) & masks.causal(offset=2),
    ):
        model = Own(attn_mask=rule)
        plain = model()
        with observe(model) as record:
            assert torch.equal(model(), plain)
        assert record.missed == []
        exact = model(return_matrix=True)[1].to_dense()
        torch.testing.assert_close(record[""].to_dense(), exact, rtol=0, atol=1e-6)


def test_dropout_leaves_the_weights_as_they_were():
    model = Own(dropout_p=0.5)
    with observe(model) as record:
        model()
    exact = torch.softmax(model.q @ model.k.mT * WIDTH**-0.5, -1)
    torch.testing.assert_close(record[""].to_dense(), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("weights", ["dense", "matrix"])
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_our_multihead_attention(need_weights: bool, weights: str, kv_heads: int):
    torch.manual_seed(0)
    layer = clearhead.MultiheadAttention(24, 4, batch_first=True, num_kv_heads=kv_heads, rotary=kv_heads == 2 or None)
    model = nn.Sequential(nn.Identity(), layer).eval()
    x = torch.randn(2, L, 24, generator=torch.Generator().manual_seed(1))
    options = {"need_weights": need_weights, "weights": weights, "key_padding_mask": torch.arange(L)[None] > 4}
    options["key_padding_mask"] = options["key_padding_mask"].expand(2, L)
    plain, _ = layer(x, x, x, **options)
    with observe(model) as record:
        out, _ = layer(x, x, x, **options)
    assert torch.equal(out, plain)
    assert list(record) == ["1"]
    _, exact = layer(x, x, x, key_padding_mask=options["key_padding_mask"], average_attn_weights=False)
    torch.testing.assert_close(record["1"].to_dense(), exact, rtol=0, atol=1e-6)


def test_a_cache_that_grows():
    torch.manual_seed(0)
    layer = clearhead.MultiheadAttention(12, 4, batch_first=True).eval()
    x = torch.randn(1, L, 12)
    later = torch.ones(L, L, dtype=torch.bool).triu(1)
    _, exact = layer(x, x, x, attn_mask=later, average_attn_weights=False)
    cache = clearhead.KVCache(1, 4, 16, 3)
    with observe(layer) as record:
        for part in (x[:, :3], x[:, 3:5], x[:, 5:6], x[:, 6:]):
            layer(part, part, part, cache=cache, is_causal=True, need_weights=False)
    assert record.missed == []
    row = 0
    for matrix in record.calls(""):
        dense = matrix.to_dense()
        torch.testing.assert_close(dense, exact[:, :, row : row + dense.shape[2], : dense.shape[3]], rtol=0, atol=1e-6)
        row += dense.shape[2]
    assert row == L


def test_torchs_encoder_with_our_attention_in_it():
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 4, 17, batch_first=True), 2).eval()
    clearhead.replace_attention(model)
    x = torch.randn(2, L, 12)
    plain = model(x)
    with observe(model) as record:
        assert torch.equal(model(x), plain)
    assert list(record) == ["layers.0.self_attn", "layers.1.self_attn"]
    _, exact = model.layers[0].self_attn(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(record["layers.0.self_attn"].to_dense(), exact, rtol=0, atol=1e-6)


def test_sequences_without_padding():
    class Packed(nn.Module):
        def forward(self, q, offsets):
            return clearhead.attention_varlen(q, q, q, offsets)

    model, q = Packed(), torch.randn(8, 2, WIDTH)
    with observe(model) as record:
        model(q, torch.tensor([0, 3, 8]))
    assert [matrix.shape for matrix in record.calls("")] == [(1, 2, 3, 3), (1, 2, 5, 5)]


def test_our_attention_behind_hugging_faces_interface():
    from transformers import LlamaConfig, LlamaModel

    from ..families import GROUPED, left

    clearhead.register_with_transformers()
    torch.manual_seed(0)
    model = LlamaModel(LlamaConfig(**GROUPED)).eval()
    model.set_attn_implementation("eager")
    exact = model(**left(), output_attentions=True).attentions
    model.set_attn_implementation("clearhead")
    plain = model(**left()).last_hidden_state
    with observe(model) as record:
        assert torch.equal(model(**left()).last_hidden_state, plain)
    assert record.missed == []
    assert len(record) == 2
    for matrix, weights in zip(record.values(), exact, strict=True):
        used = (matrix.lse > -torch.inf)[..., None]
        torch.testing.assert_close(matrix.to_dense(), weights * used, rtol=0, atol=1e-6)
