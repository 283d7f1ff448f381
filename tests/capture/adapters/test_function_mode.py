"""Attention outside Hugging Face: direct calls of torch's functions, nn.MultiheadAttention, nn.Transformer*."""

import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearhead.capture import observe

X = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(1))
PADDING = torch.arange(7) >= torch.tensor([[7], [5]])  # nn.MultiheadAttention's: True = may not attend
SDPA = F.scaled_dot_product_attention


@pytest.fixture(autouse=True)
def put_back():
    with torch.no_grad():
        yield
    assert F.scaled_dot_product_attention is SDPA


class Vision(nn.Module):
    """Attention as timm's vision transformers write it."""

    def __init__(self, is_causal: bool = False) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 36)
        self.is_causal = is_causal

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        q, k, v = self.qkv(x).view(2, 7, 3, 4, 3).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.is_causal, scale=0.5)
        return out.transpose(1, 2).reshape(2, 7, 12)

    def weights(self, x: torch.Tensor, allow: torch.Tensor | None = None) -> torch.Tensor:
        q, k, _ = self.qkv(x).view(2, 7, 3, 4, 3).permute(2, 0, 3, 1, 4)
        logits = q @ k.mT * 0.5
        return torch.softmax(logits if allow is None else logits.masked_fill(~allow, -torch.inf), -1)


def test_a_direct_call_of_scaled_dot_product_attention():
    model = nn.Sequential(Vision(), nn.Tanh(), Vision(is_causal=True))
    plain = model(X)
    with observe(model) as record:
        assert torch.equal(model(X), plain)
    assert list(record) == ["0", "2"]
    torch.testing.assert_close(record["0"].to_dense(), model[0].weights(X))
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    torch.testing.assert_close(record["2"].to_dense(), model[2].weights(model[:2](X), causal))


@pytest.mark.parametrize("axes", [2, 4])
def test_a_direct_call_with_a_mask(axes: int):
    model = Vision()
    allow = torch.rand(7, 7, generator=torch.Generator().manual_seed(3)) < 0.6
    allow.fill_diagonal_(True)
    mask = allow if axes == 2 else torch.zeros(1, 1, 7, 7).masked_fill(~allow, -torch.inf)
    with observe(model) as record:
        model(X, mask)
    torch.testing.assert_close(record[""].to_dense(), model.weights(X, allow))


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_multihead_attention(need_weights: bool, training: bool, batch_first: bool):
    model = nn.MultiheadAttention(12, 4, batch_first=batch_first).train(training)
    x = X if batch_first else X.transpose(0, 1)
    options = {"key_padding_mask": PADDING, "need_weights": need_weights}
    _, exact = model(x, x, x, key_padding_mask=PADDING, average_attn_weights=False)
    plain, weights = model(x, x, x, **options)
    with observe(model) as record:
        out, again = model(x, x, x, **options)
    assert (again is None) == (weights is None)
    torch.testing.assert_close(out, plain, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(record[""].to_dense(), exact, rtol=0, atol=1e-6)
    assert record[""].to_dense()[1, :, :, 5:].abs().max() == 0


def test_a_causal_mask_of_multihead_attention():
    model = nn.MultiheadAttention(12, 4, batch_first=True).eval()
    later = torch.ones(7, 7, dtype=torch.bool).triu(1)
    _, exact = model(X, X, X, attn_mask=later, average_attn_weights=False)
    with observe(model) as record:
        model(X, X, X, attn_mask=later, is_causal=True, need_weights=False)
        model(X, X, X, attn_mask=later)
    for matrix in record.calls(""):
        torch.testing.assert_close(matrix.to_dense(), exact, rtol=0, atol=1e-6)


def test_the_encoder_on_its_fast_path():
    layer = nn.TransformerEncoderLayer(12, 4, 17, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fast path's own, about nested tensors
        plain = model(X, src_key_padding_mask=PADDING)
    with observe(model) as record:
        out = model(X, src_key_padding_mask=PADDING)
    kept = ~PADDING[..., None]
    torch.testing.assert_close(out * kept, plain * kept, rtol=1e-5, atol=1e-6)
    assert list(record) == ["layers.0.self_attn", "layers.1.self_attn"]
    assert record.missed == []
    _, exact = model.layers[0].self_attn(X, X, X, key_padding_mask=PADDING, average_attn_weights=False)
    torch.testing.assert_close(record["layers.0.self_attn"].to_dense(), exact, rtol=0, atol=1e-6)


def test_the_whole_transformer_with_cross_attention():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about nested tensors, on construction
        model = nn.Transformer(12, 4, 1, 1, 17, batch_first=True).eval()
    with observe(model) as record:
        model(X, X[:, :5])
    shapes = {name: matrix.shape for name, matrix in record.items()}
    assert shapes == {
        "encoder.layers.0.self_attn": (2, 4, 7, 7),
        "decoder.layers.0.self_attn": (2, 4, 5, 5),
        "decoder.layers.0.multihead_attn": (2, 4, 5, 7),
    }


def test_dropout_in_training_draws_the_same_numbers():
    model = nn.MultiheadAttention(12, 4, dropout=0.5, batch_first=True).train()
    for need_weights in (False, True):
        torch.manual_seed(5)
        plain = model(X, X, X, need_weights=need_weights)[0]
        torch.manual_seed(5)
        with observe(model) as record:
            out = model(X, X, X, need_weights=need_weights)[0]
        torch.testing.assert_close(out, plain, rtol=1e-6, atol=1e-6)
        assert len(record) == 1


class OwnAttention(nn.Module):
    """Attention written out: product, scale, bias of each key, mask, softmax."""

    def __init__(self, extra: torch.Tensor, divisor: float = 1.7) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 36)
        self.extra, self.divisor = extra, divisor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).view(2, 7, 3, 4, 3).permute(2, 0, 3, 1, 4)
        self.weights = torch.softmax(torch.matmul(q, k.mT) / self.divisor + self.extra, dim=-1)
        return (self.weights @ v).transpose(1, 2).reshape(2, 7, 12)


CAUSAL = torch.zeros(7, 7).masked_fill(torch.ones(7, 7, dtype=torch.bool).triu(1), -1e9)
SLOPES = torch.arange(7.0) * torch.tensor([0.5, 0.25, 0.1, 0.01])[:, None, None]


@pytest.mark.parametrize(
    "extra", [torch.zeros(7, 7), CAUSAL, CAUSAL + SLOPES, CAUSAL.mT], ids=["", "causal", "alibi", "anti"]
)
def test_attention_by_hand(extra: torch.Tensor):
    model = OwnAttention(extra)
    plain = model(X)
    with observe(model) as record:
        assert torch.equal(model(X), plain)
    assert record.missed == []
    torch.testing.assert_close(record[""].to_dense(), model.weights, rtol=0, atol=1e-6)
    assert (record[""]._logits.attention.reach == (None, 0)) == (extra is CAUSAL or extra[0].dim() == 2)


def test_attention_by_hand_with_one_entry_more_keeps_that_entry():
    extra = CAUSAL.clone()
    extra[5, 3] += 0.01
    model = OwnAttention(extra, 3**0.5)
    with observe(model) as record:
        model(X)
    assert record.missed == []
    torch.testing.assert_close(record[""].to_dense(), model.weights, rtol=0, atol=1e-6)
    assert record[""]._logits.attention.bias.shape == (1, 1, 7, 7)  # no more of a table than there is to say


def test_an_exception_inside_leaves_no_trace():
    model = nn.Sequential(Vision(), nn.Linear(5, 5))
    with pytest.raises(RuntimeError), observe(model) as record:
        model(X)
    assert list(record) == ["0"]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with observe(model[0]) as record:
        model[0](X)
    assert len(record.calls("")) == 1


def test_another_thread_is_not_disturbed():
    model, other = nn.MultiheadAttention(12, 4, batch_first=True), Vision()
    plain, results = other(X), []
    with torch.no_grad(), observe(model) as record:
        thread = threading.Thread(target=lambda: results.append(other(X).detach()))
        thread.start()
        model(X, X, X, need_weights=False)
        thread.join()
    assert torch.equal(results[0], plain)
    assert list(record) == [""]
