"""ablate(): each head's effect, however many heads share a forward pass."""

import pytest
import torch
import transformers as hf
from torch import nn

import clearhead
from capture.families import GROUPED, ids
from clearhead.errors import OptionError


def llama() -> hf.LlamaForCausalLM:
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED)).double().eval()


def metric(out) -> torch.Tensor:
    return out.logits[0, -1, 5] - out.logits[-1, 3, 7]


@pytest.mark.parametrize(("batch", "jobs", "change"), [(1, 1, "zero"), (3, 1, "mean"), (8, 2, "zero")])
def test_each_effect_is_that_of_one_intervention(batch, jobs, change):
    model, tokens, done = llama(), ids(), []
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    effects = clearhead.ablate(
        model, inputs, metric, change=change, batch=batch, jobs=jobs, progress=lambda *count: done.append(count)
    )
    with torch.no_grad():
        whole = float(metric(model(**inputs)))
        for number, row in enumerate(effects):
            assert (row.layer, row.head) == (f"model.layers.{number // 4}.self_attn", number % 4)
            with clearhead.intervene(model, {(row.layer, row.head): change}):
                assert row.value == pytest.approx(float(metric(model(**inputs))), abs=1e-12)
            assert row.effect == pytest.approx(row.value - whole, abs=1e-12)
    assert effects.baseline == pytest.approx(whole, abs=1e-12)
    assert done[-1] == (8, 8)
    torch.testing.assert_close(effects.matrix().flatten().tolist(), [row.effect for row in effects], rtol=1e-6, atol=0)
    assert [abs(row.effect) for row in effects.strongest()] == sorted(
        (abs(row.effect) for row in effects), reverse=True
    )


@pytest.mark.parametrize("length", [7, 8])
def test_a_batch_that_is_not_the_first_axis_is_not_mixed(length):
    """With 8 × 8 inputs a batch of four copies has as many rows as before: only the lengths tell."""
    torch.manual_seed(1)
    layer, x = nn.MultiheadAttention(12, 3).double().eval(), torch.randn(length, 8, 12).double()
    effects = clearhead.ablate(layer, (x, x, x), lambda out: out[0][:, 1].sum(), batch=3)
    alone = clearhead.ablate(layer, (x, x, x), lambda out: out[0][:, 1].sum(), batch=1)
    assert torch.equal(effects.matrix(), alone.matrix())
    assert effects.matrix().abs().min() > 0


def test_some_layers_and_heads_as_a_table():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    effects = clearhead.ablate(llama(), ids(), metric, layers=[-1], heads=[2, 0])
    assert [(row.layer, row.head) for row in effects] == [("model.layers.1.self_attn", head) for head in (2, 0)]
    table = effects.table("pandas")
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns) == ["layer", "head", "value", "effect"]
    assert table.effect.tolist() == [row.effect for row in effects]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [5]}, "layer 5 has no heads"),
        ({"heads": [4]}, "heads 0..3"),
        ({"batch": 0}, "batch is 0"),
        ({"metric": lambda out: out.logits}, "expected one number"),
        ({"inputs": 3}, "expected a dict"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        clearhead.ablate(llama(), options.pop("inputs", ids()), options.pop("metric", metric), **options)
