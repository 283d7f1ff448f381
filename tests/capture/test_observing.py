"""observe(): filters, memory budget, missed modules, and that everything is restored."""

import contextlib
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel
from transformers.modeling_utils import AttentionInterface

from clearhead.capture import Missed, observe
from clearhead.errors import CaptureError, OptionError

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2]])
NAMES = ["h.0.attn", "h.1.attn", "h.2.attn"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = GPT2Config(n_embd=12, n_head=3, n_layer=3, vocab_size=17, n_positions=40, eos_token_id=0, bos_token_id=0)
    return GPT2LMHeadModel(config).eval().transformer


@pytest.fixture(autouse=True)
def quiet_and_put_back(model):
    original = AttentionInterface.get_interface
    with torch.no_grad():
        yield
    assert AttentionInterface.get_interface is original
    hooks = [hook for module in model.modules() for hook in module._forward_hooks.values()]
    assert not [hook for hook in hooks if hook.__module__.startswith("clearhead")]


def test_chosen_layers_and_heads(model):
    with observe(model) as everything:
        model(IDS)
    assert list(everything) == NAMES
    with observe(model, layers=[-1, "h.0.attn"], heads=[2, 0]) as record:
        model(IDS)
    assert list(record) == ["h.0.attn", "h.2.attn"]
    assert record.missed == []
    assert record["h.2.attn"].shape == (1, 2, 7, 7)
    assert torch.equal(record["h.2.attn"].to_dense(), everything["h.2.attn"].to_dense()[:, [2, 0]])


def test_layers_and_heads_that_do_not_exist(model):
    with (
        pytest.raises(OptionError, match=r"no layer 3: the model has 3 attention modules.*h\.0\.attn"),
        observe(model, layers=[3]),
    ):
        pass
    with (
        pytest.raises(OptionError, match=r"no layer named 'h\.9\.attn'.*h\.0\.attn"),
        observe(model, layers=["h.9.attn"]),
    ):
        pass
    with pytest.raises(OptionError, match=r"h\.0\.attn has heads 0\.\.2"), observe(model, heads=[3]):
        model(IDS)


@pytest.mark.parametrize("asked", [{"layers": []}, {"heads": ()}])
def test_none_asked_for_is_reported_before_the_model_runs(model, asked):
    with pytest.raises(OptionError, match=f"{next(iter(asked))} names none.*leave it out"), observe(model, **asked):
        pytest.fail("the model need not run")


def test_past_the_budget_the_model_runs_on_and_the_rest_is_named(model):
    plain = model(IDS).last_hidden_state
    each = 2 * 7 * 12 * 4
    with (
        pytest.warns(
            RuntimeWarning, match=r"stopped at h\.1\.attn, whose queries and keys take 672 bytes with 671 of max_bytes"
        ),
        observe(model, max_bytes=2 * each - 1) as record,
    ):
        assert torch.equal(model(IDS).last_hidden_state, plain)
    assert list(record) == ["h.0.attn"]
    assert record.missed == [Missed(name, "max_bytes was reached") for name in NAMES[1:]]
    with pytest.raises(KeyError, match="max_bytes was reached"):
        record["h.1.attn"]


def test_everything_is_put_back_after_an_exception(model):
    plain = model(IDS).last_hidden_state
    with pytest.raises(ZeroDivisionError), observe(model) as record:  # noqa: PT012 (the exception comes after a run)
        model(IDS)
        raise ZeroDivisionError
    assert len(record) == 3  # what was seen before stays
    assert torch.equal(model(IDS).last_hidden_state, plain)
    assert len(record.calls("h.0.attn")) == 1  # and nothing is seen after


def test_everything_is_put_back_after_an_exception_in_the_model(model):
    with pytest.raises(IndexError), observe(model):
        model(torch.tensor([[99]]))


def test_nested_observers_each_see_their_own(model):
    other = BertModel(BertConfig(vocab_size=11, hidden_size=10, num_hidden_layers=1, num_attention_heads=2)).eval()
    with observe(model) as outer:
        model(IDS)
        with observe(model, layers=[1]) as inner, observe(other) as third:
            model(IDS)
            other(IDS)
        model(IDS)
    assert [len(outer.calls(name)) for name in NAMES] == [3, 3, 3]
    assert {name: len(inner.calls(name)) for name in inner} == {"h.1.attn": 1}
    assert list(third) == ["encoder.layer.0.attention.self"]


def test_another_threads_runs_are_not_mixed_in(model):
    with observe(model) as record:
        model(IDS)
        thread = threading.Thread(target=lambda: model(IDS[:, :3]))
        thread.start()
        thread.join()
    assert [matrix.shape for matrix in record.calls("h.0.attn")] == [(1, 3, 7, 7)]


def test_two_threads_may_observe_at_once(model):
    records = {}
    gate = threading.Barrier(2)

    def work(length: int) -> None:
        with torch.no_grad(), observe(model) as record:
            gate.wait()
            model(IDS[:, :length])
            gate.wait()
        records[length] = record

    threads = [threading.Thread(target=work, args=(length,)) for length in (3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {length: record["h.0.attn"].shape[2] for length, record in records.items()} == {3: 3, 5: 5}


class HandWritten(nn.Module):
    """Attention written out, that waits in its midst until the other thread is there too."""

    def __init__(self, gate: threading.Barrier) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = x[:, None] @ x[:, None].mT
        self.gate.wait()
        weights = torch.softmax(logits, -1)
        self.gate.wait()
        return (weights @ x[:, None])[:, 0]


class OwnAttention(HandWritten):
    """The name by which an attention module is known."""


@pytest.mark.parametrize("second_observes", [False, True])
def test_two_threads_in_one_model_that_computes_by_hand(second_observes: bool):
    """Hooks belong to the model, which both threads run: each must see its own run alone."""
    gate = threading.Barrier(2)
    model = nn.Sequential(OwnAttention(gate), nn.Tanh(), OwnAttention(gate))
    texts = {name: torch.randn(1, name, 5, generator=torch.Generator().manual_seed(name)) for name in (3, 7)}
    records, failed = {}, []

    def work(name: int, observes: bool) -> None:
        try:
            with torch.no_grad(), observe(model) if observes else contextlib.nullcontext() as record:
                gate.wait()
                model(texts[name])
                gate.wait()
            records[name] = record
        except Exception as error:  # noqa: BLE001 (told of in the main thread)
            failed.append(error)
            gate.abort()

    threads = [threading.Thread(target=work, args=given) for given in ((3, True), (7, second_observes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for name in (3, 7) if second_observes else (3,):
        assert list(records[name]) == ["0", "2"]
        assert records[name].missed == []
        assert len(records[name].calls("0")) == 1
        exact = torch.softmax(texts[name] @ texts[name].mT, -1)[:, None]
        torch.testing.assert_close(records[name]["0"].to_dense(), exact)


def test_nested_observers_of_multihead_attention():
    """The inner one watches through the outer one's watch."""
    model = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    x = torch.randn(2, 5, 12)
    plain = model(x, x, x, need_weights=False)[0]
    _, exact = model(x, x, x, average_attn_weights=False)
    for options in ({"need_weights": False}, {}):
        with observe(model) as outer, observe(model) as inner:
            torch.testing.assert_close(model(x, x, x, **options)[0], plain)
        for record in (outer, inner):
            assert len(record.calls("")) == 1
            torch.testing.assert_close(record[""].to_dense(), exact, rtol=0, atol=1e-6)


def test_a_model_without_attention_is_refused():
    plain = nn.Sequential(nn.Linear(3, 5), nn.ReLU())
    with pytest.raises(CaptureError, match="Sequential ran and no attention was seen"), observe(plain):
        plain(torch.ones(2, 3))


def test_nothing_run_is_no_error_and_says_so_when_asked(model):
    with observe(model) as record:
        pass
    assert len(record) == 0
    with pytest.raises(KeyError, match="run the model inside"):
        record["h.0.attn"]


class OwnSelfAttention(nn.Module):
    """Attention without a softmax (Katharopoulos et al. 2020), which AttentionMatrix cannot express."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = nn.functional.elu(x) + 1
        return seen @ (seen.mT @ x) / (seen @ seen.sum(1, keepdim=True).mT)


def test_attention_that_cannot_be_seen_is_named():
    model = nn.Sequential(nn.Linear(3, 3), OwnSelfAttention())
    with observe(model) as record:
        model(torch.ones(1, 2, 3))
    assert len(record) == 0
    assert [item.name for item in record.missed] == ["1"]
    assert "OwnSelfAttention computes its attention by itself" in record.missed[0].reason
    with pytest.raises(KeyError, match="was not captured: OwnSelfAttention"):
        record["1"]


def test_attention_with_an_unknown_term_is_named_not_recorded_wrong(model, monkeypatch):
    """A function behind the interface that adds something of its own must not be recorded without it."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def own(module, query, key, value, mask, **options):
        return sdpa_attention_forward(module, query + 0.3, key, value, mask, **options)

    monkeypatch.setitem(AttentionInterface._global_mapping, "sdpa", own)
    with observe(model) as record:
        model(IDS)
    assert len(record) == 0
    assert [item.name for item in record.missed] == NAMES
    assert "a term Clearhead does not know" in record.missed[0].reason


def test_the_record_owns_its_tensors(model):
    with observe(model) as record:
        model(IDS)
    matrix = record["h.0.attn"]
    assert matrix._logits.query.untyped_storage().nbytes() == 7 * 12 * 4
    assert not matrix._logits.query.requires_grad


def test_values_are_kept_when_asked(model):
    with observe(model, values=True, heads=[1]) as record:
        model(IDS)
    matrix, value = record["h.0.attn"], record["h.0.attn"]._value
    assert value.shape == (1, 1, 7, 4)
    exact = matrix.to_dense() * value.norm(dim=-1)[:, :, None]
    torch.testing.assert_close(matrix.value_weighted().to_dense(), exact)
    with observe(model) as record:
        model(IDS)
    with pytest.raises(OptionError, match="values=True"):
        record["h.0.attn"].value_weighted()


def test_a_model_set_to_eager_is_seen_too(model):
    with observe(model) as record:
        model(IDS)
    model.set_attn_implementation("eager")
    try:
        with warnings.catch_warnings(), observe(model) as again:
            weights = model(IDS, output_attentions=True).attentions
    finally:
        model.set_attn_implementation("sdpa")
    for name, exact in zip(NAMES, weights, strict=True):
        torch.testing.assert_close(again[name].to_dense(), exact, rtol=0, atol=1e-6)
        torch.testing.assert_close(record[name].to_dense(), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"layers": 99}, r"layers is 99, expected a list of indices or names. Write layers=\[99\]"),
        ({"layers": "encoder"}, r"Write layers=\['encoder'\]"),
        ({"layers": 1.5}, "layers is 1.5, expected a list"),
        ({"layers": [99]}, "there is no layer 99"),
        ({"layers": [None]}, "layers has None in it, expected indices or names"),
        ({"layers": [True]}, "layers has True in it"),
        ({"heads": 0}, r"heads is 0, expected a list of indices. Write heads=\[0\]"),
        ({"heads": ["0"]}, "heads has '0' in it, expected indices"),
        ({"heads": [0.5]}, "heads has 0.5 in it"),
        ({"heads": {0: [1]}}, "heads is a dict, expected a list of indices"),
        ({"layers": {0: [1]}}, "layers is a dict, expected a list of indices or names"),
        ({"max_bytes": "much"}, "max_bytes is 'much', expected a size"),
        ({"max_bytes": -5}, "max_bytes is -5, expected a size"),
        ({"max_bytes": "-5MB"}, "max_bytes is '-5MB', expected a size"),
        ({"max_bytes": 0}, "max_bytes is 0"),
        ({"max_bytes": float("nan")}, "max_bytes is nan"),
        ({"max_bytes": True}, "max_bytes is True"),
        ({"max_bytes": [5]}, r"max_bytes is \[5\]"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_a_reason(model, asked, said):
    with pytest.raises(OptionError, match=said), observe(model, **asked):
        pass


@pytest.mark.parametrize("given", [None, "bert", BertModel])
def test_what_is_no_module_is_refused_with_a_reason(given):
    with pytest.raises(OptionError, match=r"expected a torch\.nn\.Module"), observe(given):
        pass


@pytest.mark.parametrize("layers", [range(1), {0}, (one for one in [0]), torch.tensor([0]), np.array([0])])
def test_layers_may_come_in_any_collection(model, layers):
    with observe(model, layers=layers, max_bytes="5 MiB") as record:
        model(torch.tensor([[1, 2, 3]]))
    assert len(record) == 1
