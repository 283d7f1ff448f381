"""Softmax tracing: what is recorded is what multiplied the values, or the module is listed as missed."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearhead.capture import observe

from .missed_forms import (
    MISSED,
    ONLY_BY_NAME,
    UNNORMALISED,
    a_sink_dropped,
    additive,
    difference_of_two,
    divided_later,
    dropout_in_training,
    mask_after_softmax,
    no_values,
    sigmoid,
    used_from_the_other_side,
)
from .recorded_forms import CAUSAL, RECORDED, B, D, E, H, HeadsAttention, L, Own, OwnAttention

X = torch.randn(B, L, E, generator=torch.Generator().manual_seed(1))


def run(model: nn.Module):
    """(record, whether the model gave the same as unobserved)."""
    torch.manual_seed(2)
    plain = model(X)
    torch.manual_seed(2)
    with observe(model) as record:
        out = model(X)
    return record, torch.equal(out, plain)


@pytest.mark.parametrize("kind", [Own, OwnAttention, HeadsAttention])
@pytest.mark.parametrize("compute", RECORDED.values(), ids=RECORDED)
def test_what_multiplied_the_values_is_recorded(compute, kind):
    torch.manual_seed(0)
    model = kind(compute)
    record, same = run(model)
    assert same
    assert record.missed == []
    assert list(record) == [""]
    close = 1e-2 if "half" in compute.__name__ else 1e-6
    torch.testing.assert_close(record[""].to_dense().float(), model.used, rtol=0, atol=close)


@pytest.mark.parametrize("kind", [Own, OwnAttention])
@pytest.mark.parametrize("compute", MISSED.values(), ids=MISSED)
def test_weights_that_are_no_softmax_are_named(compute, kind):
    torch.manual_seed(0)
    record, same = run(kind(compute))
    assert same
    assert len(record) == 0
    assert [item.name for item in record.missed] == [""]
    assert kind.__name__ in record.missed[0].reason


@pytest.mark.parametrize("edited", ["weights", "logits"])
def test_an_edit_that_no_torch_function_makes_is_named(edited):
    def edited_in_numpy(m, q, k, v):
        tables = {"logits": (logits := q @ k.mT), "weights": logits.softmax(-1)}
        tables[edited].detach().numpy()[..., 0] = 0
        return tables["weights"] @ v

    record, same = run(OwnAttention(edited_in_numpy))
    assert same
    assert len(record) == 0
    assert "overwrites its weights" in record.missed[0].reason


@pytest.mark.parametrize("compute", ONLY_BY_NAME.values(), ids=ONLY_BY_NAME)
def test_what_is_called_attention_and_is_not_one_softmax_is_named(compute):
    record, same = run(OwnAttention(compute))
    assert same
    assert len(record) == 0
    assert "computes its attention by itself" in record.missed[0].reason


@pytest.mark.parametrize("kind", [Own, OwnAttention])
@pytest.mark.parametrize("compute", UNNORMALISED.values(), ids=UNNORMALISED)
def test_weights_without_a_softmax_are_named(compute, kind):
    record, same = run(nn.Sequential(nn.Identity(), kind(compute)))
    assert same
    assert len(record) == 0
    assert [item.name for item in record.missed] == ["1"]
    assert "not a softmax" in record.missed[0].reason


def test_products_that_are_no_attention_are_not_named():
    """Layers, a contrastive loss's logits, a Gram matrix: nothing is multiplied by weights over keys."""

    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(E, E), nn.Parameter(torch.randn(E, E))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).relu() @ self.second
            contrast = (F.normalize(x, dim=-1) @ F.normalize(x.flip(0), dim=-1).mT).exp()
            gram = (x.mT @ x).tanh() @ self.second
            return x * contrast.mean() + gram.mean()

    record, same = run(nn.Sequential(Products(), OwnAttention(lambda m, q, k, v: (q @ k.mT).softmax(-1) @ v)))
    assert same
    assert list(record) == ["1"]
    assert record.missed == []


def test_reasons_say_what_happened():
    said = {
        mask_after_softmax: r"between the softmax and the values \(mul\)",
        dropout_in_training: r"\(dropout\). Call model.eval\(\)",
        difference_of_two: "takes 2 softmaxes in one pass",
        used_from_the_other_side: "another axis than its softmax",
        a_sink_dropped: "a part of each row",
        divided_later: "divides by their sum later",
        sigmoid: r"not a softmax \(sigmoid\)",
        additive: "not a product of queries and keys",
        no_values: "multiplies no values",
    }
    for compute, words in said.items():
        record, _ = run(OwnAttention(compute))
        with pytest.raises(KeyError, match=words):
            record[""]


def test_large_weights_are_compared_on_a_sample_of_rows():
    length = 1100  # more than used.WHOLE weights

    class LateAttention(nn.Module):
        def forward(self, x: Tensor, late: bool) -> Tensor:
            weights = (x @ x.mT).softmax(-1)
            if late:
                weights = weights * torch.ones(length, length).tril()
            return weights @ x

    x = torch.randn(1, 1, length, 3)
    model = LateAttention()
    with observe(model) as record:
        model(x, late=False)
    torch.testing.assert_close(record[""][0, 0, 1090], (x[0, 0, 1090] @ x[0, 0].T).softmax(-1), rtol=0, atol=1e-6)
    with observe(model) as record:
        model(x, late=True)
    assert len(record) == 0
    assert len(record.missed) == 1


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(E, D, bias=False) for _ in range(3))

    def look(self, x: Tensor) -> Tensor:
        logits = self.query(x) @ self.key(x).mT / D**0.5
        self.used = logits.masked_fill(CAUSAL == 0, -torch.inf).softmax(-1)
        return self.used @ self.value(x)

    forward = look


class MultiHeadAttention(nn.Module):
    def __init__(self, kind: type[nn.Module] = Head) -> None:
        super().__init__()
        self.heads = nn.ModuleList(kind() for _ in range(H))
        self.proj = nn.Linear(H * D, E)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(torch.cat([head(x) for head in self.heads], -1))


def test_heads_in_a_list_have_a_matrix_each():
    model = nn.Sequential(MultiHeadAttention(), nn.ReLU(), MultiHeadAttention())
    with observe(model) as record:
        model(X)
    assert list(record) == [f"{layer}.heads.{head}" for layer in (0, 2) for head in range(H)]
    assert record.missed == []
    for name, matrix in record.items():
        torch.testing.assert_close(matrix.to_dense()[:, 0], model.get_submodule(name).used, rtol=0, atol=1e-6)
    with observe(model, layers=[-1]) as record:
        model(X)
    assert list(record) == [f"2.heads.{head}" for head in range(H)]


def test_a_module_that_only_makes_the_weights():
    class Weights(nn.Module):
        def forward(self, q: Tensor, k: Tensor) -> Tensor:
            return (q @ k.mT).softmax(-1)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = Weights()

        def forward(self, x: Tensor) -> Tensor:
            return self.weights(x / D, x) @ x

    model = Outer()
    with observe(model) as record:
        model(X)
    assert list(record) == [""]
    torch.testing.assert_close(record[""].to_dense()[:, 0], (X @ X.mT / D).softmax(-1), rtol=0, atol=1e-6)


class AttentionOutput(nn.Module):
    """A layer with an attention's name: positions are not mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(E, E), nn.LayerNorm(E)
        self.register_buffer("gain", torch.ones(E))

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.norm(F.dropout(F.silu(self.dense(x)) * self.gain, 0.1, self.training) + residual)


class Block(nn.Module):
    def __init__(self, inner: nn.Module, outer: nn.Module) -> None:
        super().__init__()
        self.inner, self.outer = inner, outer

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x), x)


def test_a_layer_that_is_called_attention_was_not_missed():
    model = Block(MultiHeadAttention(), AttentionOutput())
    with observe(model) as record:
        model(X)
    assert len(record) == H
    assert record.missed == []


class AttentionConvProjection(nn.Module):
    """CvT's: a convolution along the tokens and a norm, by an attention's name."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv1d(E, E, 3, padding=1, groups=E), nn.BatchNorm1d(E)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convolution(x.transpose(1, 2))).transpose(1, 2)


class ConvolutionalAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = AttentionConvProjection(), AttentionConvProjection()

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.query(x) @ self.key(x).transpose(1, 2), -1) @ x


def test_a_convolution_inside_an_attention_was_not_missed():
    model = nn.Sequential(ConvolutionalAttention()).eval()
    with observe(model) as record:
        model(X)
    assert list(record) == ["0"]
    assert record.missed == []


def test_a_convolution_that_is_the_whole_attention_is_named():
    model = nn.Sequential(MultiHeadAttention(), AttentionConvProjection()).eval()
    with observe(model) as record:
        model(X)
    assert [item.name for item in record.missed] == ["1"]


class ScriptedAttention(nn.Module):
    """A function mode does not see what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed = torch.jit.script(_mixed)
        self.dense = nn.Linear(E, E)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.dense(self.mixed(x)) + residual


def _mixed(x: Tensor) -> Tensor:
    return torch.softmax(x @ x.transpose(1, 2), -1) @ x


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_attention_inside_a_scripted_function_is_named():
    model = Block(MultiHeadAttention(), ScriptedAttention())
    with observe(model) as record:
        model(X)
    assert [item.name for item in record.missed] == ["outer"]
