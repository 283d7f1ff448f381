"""record.to_transformer_lens(): TransformerLens' names and axes, with each tensor computed on access."""

import pytest
import torch
import transformers as hf

from clearhead import AttentionMatrix
from clearhead.capture import Record, observe
from clearhead.errors import TooLargeError

from ..families import ENCODER_DECODER, FAMILIES, GPT, GROUPED, ids

B, L, H, D = 2, 11, 4, 6


def cache_of(model, inputs, **options):
    torch.manual_seed(0)
    with torch.no_grad(), observe(model.eval(), values=True, **options) as record:
        out = model(**inputs)
    return record.to_transformer_lens(), record, out


def test_gpt2_has_each_name_in_each_block_with_its_axes():
    model = hf.GPT2Model(hf.GPT2Config(**GPT))
    cache, record, _ = cache_of(model, {"input_ids": ids()})
    shapes = {"q": (B, L, H, D), "k": (B, L, H, D), "v": (B, L, H, D), "z": (B, L, H, D), "result": (B, L, H, 24)}
    shapes |= {"pattern": (B, H, L, L), "attn_scores": (B, H, L, L)}
    assert {name: tuple(tensor.shape) for name, tensor in cache.items()} == {
        f"blocks.{layer}.attn.hook_{name}": shape for layer in range(2) for name, shape in shapes.items()
    }
    A = record["h.1.attn"]
    torch.testing.assert_close(cache["pattern", 1], A.to_dense())
    scores = cache["attn_scores", 1]
    torch.testing.assert_close(scores.softmax(-1), A.to_dense())
    assert bool((scores == -torch.inf).equal(torch.ones(L, L, dtype=torch.bool).triu(1).expand(B, H, L, L)))
    merged = cache["result", 1].sum(2) + model.h[1].attn.c_proj.bias
    torch.testing.assert_close(merged, model.h[1].attn.c_proj(cache["z", 1].flatten(2)), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_rotated_queries_and_grouped_keys_have_their_own_names():
    cache, _, _ = cache_of(hf.LlamaModel(hf.LlamaConfig(**GROUPED)), {"input_ids": ids()})
    assert cache["blocks.1.attn.hook_rot_q"].shape == (B, L, H, D)
    assert cache["rot_k", 1].shape == cache["v", 1].shape == (B, L, 2, D)
    assert "blocks.0.attn.hook_q" not in cache


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "rotary"), [("gpt-neox", True), ("bert", False), ("opt", False), ("qwen3", True)])
def test_whether_a_model_rotates_is_read_from_it(kind, rotary):
    make, inputs, _ = FAMILIES[kind]
    cache, record, _ = cache_of(make(), inputs())
    assert (("rot_q", 0) in cache, ("q", 0) in cache) == (rotary, not rotary)
    assert ("q", 0) in record.to_transformer_lens(rotary=False)


@pytest.mark.slow
def test_an_encoder_decoder_has_both_and_what_joins_them():
    model = hf.BartModel(hf.BartConfig(**ENCODER_DECODER, max_position_embeddings=64))
    cache, record, _ = cache_of(model, {"input_ids": ids(), "decoder_input_ids": ids(7)})
    stems = ("encoder.{}.attn", "decoder.{}.attn", "decoder.{}.cross_attn")
    assert {name.rpartition(".")[0] for name in cache} == {stem.format(n) for stem in stems for n in range(2)}
    assert cache["decoder.1.cross_attn.hook_pattern"].shape == (B, H, 7, L)
    dense = record["decoder.layers.1.encoder_attn"].to_dense()
    torch.testing.assert_close(cache["decoder.1.cross_attn.hook_pattern"], dense)


def test_layers_keep_their_numbers_where_some_are_recorded():
    q = torch.randn(1, 2, 5, 3)
    cache = Record.of({f"layers.{n}.attn": AttentionMatrix(q, q) for n in (3, 11)}).to_transformer_lens()
    assert {name.split(".")[1] for name in cache} == {"3", "11"}
    cache = Record.of({f"group.0.layer.{n}.attn": AttentionMatrix(q, q) for n in (3, 11)}).to_transformer_lens()
    assert {name.split(".")[1] for name in cache} == {"0", "1"}  # two numbers a name: counted


def test_nothing_dense_is_made_before_it_is_asked_for():
    q = torch.randn(1, 1, 100_003, 2)
    cache = Record.of({"layers.0.attn": AttentionMatrix(q, q)}).to_transformer_lens()
    assert cache["q", 0].shape == (1, 100_003, 1, 2)
    for name in ("pattern", "attn_scores"):
        with pytest.raises(TooLargeError):
            cache[name, 0]
    with pytest.raises(KeyError, match=r"blocks.0.attn.hook_z.*hook_pattern"):
        cache["z", 0]
