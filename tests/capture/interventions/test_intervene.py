"""intervene(): each form of attention without a head, with other weights or outputs, and restored."""

import copy

import pytest
import torch
import transformers as hf
from torch import nn

import clearhead
from capture.families import BY_HAND, FAMILIES, GROUPED, ids
from capture.softmax_tracing.recorded_forms import RECORDED, B, D, E, H, HeadsAttention, L
from clearhead.errors import CaptureError, OptionError

# In these models, removing a head's values does not remove the head: heads share values, or values gate the output or
# are added to others; and one form has a single head.
OTHER_ORACLE = {"one_key_head_by_einsum", "one_key_head_by_matmul", "a_router_beside", "weights_used_twice"}
OTHER_ORACLE |= {"two_axes_by_tensordot"}
# Their values are not those of the layer `qkv` alone, or not the same in two passes.
OTHER_VALUES = {"low_rank_keys_and_values", "low_rank_keys_absorbed_into_the_query", "several_learned_sinks"}
OTHER_VALUES |= {"low_rank_keys_absorbed_and_queries_before_heads"}
NOT_TWICE = {"dropout_of_the_values", "keys_kept_from_another_pass"}
HEADS_SUMMED = {"einsum_of_three", "einsum_over_heads_too"}


def llama() -> hf.LlamaForCausalLM:
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**{**GROUPED, "num_hidden_layers": 3})).double().eval()


def without(projection: nn.Linear, head: int, width: int):
    """A copy of an output projection that reads nothing of one head."""
    silent = copy.deepcopy(projection)
    silent.weight.data[:, head * width : (head + 1) * width] = 0
    return silent


@torch.no_grad()
def test_zero_is_the_model_whose_projection_does_not_read_the_head():
    model, tokens = llama(), ids()
    with clearhead.intervene(model, {(1, 3): "zero", ("model.layers.2.self_attn", 0): "zero"}):
        changed = model(tokens).logits
    for layer, head in ((1, 3), (2, 0)):
        attention = model.model.layers[layer].self_attn
        attention.o_proj = without(attention.o_proj, head, 6)
    torch.testing.assert_close(changed, model(tokens).logits, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("form", sorted(set(RECORDED) - OTHER_ORACLE - OTHER_VALUES - NOT_TWICE - HEADS_SUMMED))
def test_zero_in_code_without_an_adapter_is_the_model_without_the_heads_values(form):
    torch.manual_seed(1)
    model, x = HeadsAttention(RECORDED[form]).double().eval(), torch.randn(B, L, E, dtype=torch.float64)
    with clearhead.observe(model) as record:
        before = model(x)
    (name,) = record
    with clearhead.intervene(model, {(name, 1): "zero"}):
        changed = model(x)
    with clearhead.intervene(model, {(name, 1): record[name].to_dense()[:, 1]}):
        frozen = model(x)
    assert torch.equal(model(x), before)
    rounding = 1e-12 if before.dtype == torch.float64 else 0.03
    torch.testing.assert_close(frozen, before, rtol=0, atol=rounding)
    for part in (model.qkv.weight.data, model.qkv.bias.data):
        part.unflatten(0, (3, H, D))[2, 1] = 0
    torch.testing.assert_close(changed, model(x), rtol=0, atol=rounding)


@torch.no_grad()
@pytest.mark.parametrize("form", sorted(HEADS_SUMMED))
def test_heads_that_are_summed_with_their_values_are_refused_with_the_reason(form):
    model, x = HeadsAttention(RECORDED[form]).double().eval(), torch.randn(B, L, E, dtype=torch.float64)
    with (
        pytest.raises(CaptureError, match="it sums its heads in one product with the values"),
        clearhead.intervene(model, {("", 1): "zero"}),
    ):
        model(x)


@pytest.mark.parametrize("form", sorted({"one_key_head_by_einsum"} | OTHER_VALUES))
def test_heads_with_values_of_other_layers_are_zeroed_alone(form):
    torch.manual_seed(1)
    model, x = HeadsAttention(RECORDED[form]).double().eval(), torch.randn(B, L, E).double()
    with torch.no_grad():
        before = model(x)
        with clearhead.intervene(model, {("", 1): "zero"}):
            changed = model(x)
    assert (changed == 0).sum() == before.numel() // H
    assert ((changed == before) | (changed == 0)).all()


CAUSAL = ("gpt2", "llama", "mistral, window", "gpt-oss, sinks, window", "falcon", "gpt-j", "bloom, alibi")
TWO_SIDED = ("bert", "t5, position bias", "swin, windows", "deberta-v2, buckets", "xlnet, einsum", "pvt, fewer keys")


@torch.no_grad()
@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.slow) for name in CAUSAL + TWO_SIDED if name != "llama"] + ["llama"]
)
def test_a_head_frozen_at_its_own_weights_changes_nothing(family):
    torch.manual_seed(0)
    make, inputs, _ = (FAMILIES | BY_HAND)[family]
    model, given = make().eval(), {key: value for key, value in inputs().items() if "mask" not in key}
    with clearhead.observe(model) as record:
        before = model(**given)[0]
    heads = {(name, record[name].shape[1] - 1): record[name].to_dense()[:, -1] for name in record}
    with clearhead.intervene(model, heads):
        frozen = model(**given)[0]
    with clearhead.intervene(model, dict.fromkeys(heads, torch.clone)):
        same = model(**given)[0]
    with clearhead.intervene(model, dict.fromkeys(heads, "zero")):
        changed = model(**given)[0]
    with clearhead.intervene(model, {head: weights * 0 for head, weights in heads.items()}):
        weightless = model(**given)[0]
    assert torch.equal(same, before)
    assert torch.equal(model(**given)[0], before)
    torch.testing.assert_close(frozen, before, rtol=0, atol=1e-5)
    torch.testing.assert_close(weightless, changed, rtol=0, atol=1e-5)
    assert (changed - before).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("need_weights", [False, True])
def test_torchs_own_module(need_weights):
    layer, x = nn.MultiheadAttention(12, 3).double().eval(), torch.randn(5, 2, 12).double()
    before = layer(x, x, x, need_weights=need_weights)
    with clearhead.intervene(layer, {("", 1): "zero"}):
        changed = layer(x, x, x, need_weights=need_weights)
    layer.out_proj.weight[:, 4:8] = 0
    torch.testing.assert_close(changed[0], layer(x, x, x)[0], rtol=0, atol=1e-12)
    assert need_weights is False or torch.equal(changed[1], before[1])


@torch.no_grad()
def test_mean_leaves_padding_out():
    model, tokens = llama(), ids(7)
    mask = torch.ones_like(tokens)
    mask[0, :3] = 0
    seen = {}

    def keep(_, given):
        seen["z"] = given[0].detach().clone()

    with clearhead.intervene(model, {(2, 1): "mean"}):
        handle = model.model.layers[2].self_attn.o_proj.register_forward_pre_hook(keep)
        model(tokens, attention_mask=mask)
        changed = seen["z"]
        handle.remove()
    handle = model.model.layers[2].self_attn.o_proj.register_forward_pre_hook(keep)
    model(tokens, attention_mask=mask)
    handle.remove()
    own = seen["z"]
    expected = own[..., 6:12][mask > 0].mean(0)
    torch.testing.assert_close(changed[..., 6:12], expected.expand(2, 7, 6), rtol=0, atol=1e-12)
    assert torch.equal(changed[..., :6], own[..., :6])


@torch.no_grad()
def test_a_record_patches_the_output_and_without_values_the_weights():
    model, clean, corrupt = llama(), ids(), ids().flip(1)
    every = {(layer, head): None for layer in range(3) for head in range(4)}
    with clearhead.observe(model, values=True) as record:
        model(clean)
    with clearhead.intervene(model, {(1, 2): record}), clearhead.observe(model, values=True) as patched:
        model(corrupt)
    contributions = patched.contributions(1)  # of what the model itself computed
    assert contributions.shape == (2, 4, 11, 24)
    with clearhead.intervene(model, {(1, 2): lambda z: record.z(1)[:, 2]}):
        by_function = model(corrupt).logits
    with clearhead.intervene(model, {(1, 2): record}):
        torch.testing.assert_close(model(corrupt).logits, by_function, rtol=0, atol=0)
    with clearhead.observe(model) as weights:
        model(clean)
    with clearhead.intervene(model, dict.fromkeys(every, weights)):
        torch.testing.assert_close(model(clean).logits, model(clean).logits, rtol=0, atol=1e-12)
        frozen = model(corrupt).logits
    assert (frozen - model(corrupt).logits).abs().max() > 1e-6


def generated(model, prompt, **options):
    out = model.generate(
        prompt, max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0, return_dict_in_generate=True,
        output_logits=True, **options,
    )  # fmt: skip
    return out.sequences, torch.stack(out.logits, 1)  # in float32, whatever the model computes in


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}], ids=["growing", "static"])
def test_generation_is_changed_at_each_step(options):
    model, prompt = llama(), ids(5)
    heads = {(0, 1): "zero", (2, 3): "zero"}
    with clearhead.intervene(model, heads):
        sequences, logits = generated(model, prompt, **options)
        whole = model(sequences).logits[:, 4:-1]
    torch.testing.assert_close(logits, whole.float(), rtol=0, atol=1e-6)
    weights = torch.eye(5, dtype=torch.float64)
    with clearhead.intervene(model, {(1, 0): weights}), clearhead.observe(model) as record:
        sequences, logits = generated(model, prompt, **options)
    free = record.joined()["model.layers.1.self_attn"].to_dense()[:, 0]  # the last token has no query
    free[:, :5] = torch.eye(5, free.shape[-1], dtype=torch.float64)
    with clearhead.intervene(model, {(1, 0): free}):
        whole = model(sequences[:, :-1]).logits[:, 4:]
    torch.testing.assert_close(logits, whole.float(), rtol=0, atol=1e-6)


@torch.no_grad()
def test_nested_in_any_order_with_observers_and_restored_after_an_exception():
    model, tokens = llama(), ids()
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    before = model(tokens).logits
    with clearhead.intervene(model, {(0, 0): "zero"}):
        alone = model(tokens).logits
        with clearhead.observe(model, values=True) as inner, clearhead.intervene(model, {(1, 1): "zero"}):
            both = model(tokens).logits
        assert torch.equal(model(tokens).logits, alone)
    with clearhead.intervene(model, {(0, 0): "zero", (1, 1): "zero"}):
        assert torch.equal(model(tokens).logits, both)
    assert not inner.missed
    assert inner.contributions(0).shape == (2, 4, 11, 24)
    with pytest.raises(ZeroDivisionError), clearhead.intervene(model, {(0, 0): lambda z: z / (1 // 0)}):
        model(tokens)
    assert torch.equal(model(tokens).logits, before)
    assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


def test_gradients_flow_through_what_is_left():
    model, tokens = llama(), ids()
    with clearhead.intervene(model, {(1, 2): lambda z: z * z, (1, 3): "zero", (1, 0): "mean"}):
        model(tokens).logits.sum().backward()
    values = model.model.layers[1].self_attn.v_proj.weight.grad  # two heads of values, each for two of queries
    assert values.isfinite().all()
    assert (values != 0).any()
    projection = model.model.layers[1].self_attn.o_proj.weight.grad
    assert (projection[:, 18:] == 0).all()
    assert (projection[:, :18] != 0).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "at least one head"),
        ({3: "zero"}, "expected \\(layer, head\\)"),
        ({(0, 1): "nothing"}, "'zero', 'mean', weights"),
        ({(0, True): "zero"}, "expected indices"),
        ({(7, 1): "zero"}, "no layer 7"),
        ({("model", 0): torch.ones(3)}, "floating point, \\(L, S\\)"),
        ({(0, 0): clearhead.Record()}, "record of nothing"),
    ],
)
def test_changes_that_are_none_are_refused(changes, message):
    with pytest.raises(OptionError, match=message), clearhead.intervene(llama(), changes):
        pass


@torch.no_grad()
def test_what_does_not_fit_is_refused_when_the_model_runs():
    model, tokens = llama(), ids()
    for change, message in (
        ({(0, 4): "zero"}, "has heads 0..3"),
        ({(0, 0): torch.eye(7)}, "runs 11 queries, and is given weights of shape \\(7, 7\\)"),
        ({(0, 0): torch.ones(11, 13)}, r"some weights have no key.* lambda z: other"),
        ({(0, 0): torch.full((11, 11), torch.nan)}, "NaN among its weights"),
        ({(0, 0): torch.ones(3, 11, 11)}, "a batch of 3, and the model runs one of 2"),
        ({(0, 0): lambda z: z[:, :3]}, "expected a tensor that broadcasts"),
    ):
        with pytest.raises(OptionError, match=message), clearhead.intervene(model, change):
            model(tokens)


def test_a_layer_that_cannot_be_changed_is_an_error_not_a_silence():
    class SigmoidAttention(nn.Module):
        def forward(self, x):
            return (x @ x.mT).sigmoid() @ x

    with pytest.raises(CaptureError, match="what is not a softmax"):  # noqa: SIM117
        with clearhead.intervene(model := SigmoidAttention(), {("", 0): "zero"}):
            model(torch.randn(2, 5, 3))
