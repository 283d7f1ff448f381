"""generate(): one matrix a step, right whatever the cache does, and keys kept once."""

import pytest
import torch
import transformers as hf

from clearhead.capture import observe

from .families import ENCODER_DECODER, GROUPED

NAME = "model.layers.1.self_attn"
IDS = torch.tensor([[5, 3, 9, 7, 11, 4, 8]])


def llama(**options) -> hf.LlamaForCausalLM:
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**{**GROUPED, "eos_token_id": None}, **options)).eval()


def weights(model, tokens: torch.Tensor) -> torch.Tensor:
    """The eager weights of layer 1 over a whole sequence at once."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        dense = model(tokens, output_attentions=True).attentions[1]
    model.set_attn_implementation("sdpa")
    return dense


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_each_step_equals_its_row_of_the_whole(cache: str):
    model = llama()
    options = {"max_new_tokens": 6, "do_sample": False, "cache_implementation": cache}
    plain = model.generate(IDS, **options)
    with observe(model) as record:
        tokens = model.generate(IDS, **options)
    assert torch.equal(tokens, plain)
    assert record.missed == []
    exact = weights(model, tokens[:, :-1])
    row = 0
    for matrix in record.calls(NAME):
        dense = matrix.to_dense()
        seen = min(dense.shape[3], exact.shape[3])
        part = exact[:, :, row : row + dense.shape[2], :seen]
        torch.testing.assert_close(dense[..., :seen], part, rtol=0, atol=1e-6)
        assert not dense[..., seen:].any()
        row += dense.shape[2]
    assert row == 12
    assert torch.equal(record[NAME].to_dense(), record.calls(NAME)[-1].to_dense())


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_keys_of_a_growing_cache_are_kept_once(cache: str):
    model = llama()
    with observe(model) as record:
        model.generate(IDS, max_new_tokens=9, do_sample=False, cache_implementation=cache)
    steps = record._steps[NAME]
    assert len({id(step.keys) for step in steps}) == 1
    assert len({matrix._logits.key.untyped_storage().data_ptr() for matrix in record.calls(NAME)}) == 1


def test_beams_that_change_places_are_not_mixed_up():
    model = llama()
    with observe(model) as record:
        model.generate(IDS, max_new_tokens=6, num_beams=3, do_sample=False)
    for matrix in record.calls(NAME):
        torch.testing.assert_close(matrix.to_dense().sum(-1), torch.ones(matrix.shape[:3]))


def test_an_encoder_decoder_generates():
    torch.manual_seed(0)
    config = hf.BartConfig(**{**ENCODER_DECODER, "eos_token_id": None}, max_position_embeddings=64)
    model = hf.BartForConditionalGeneration(config).eval()
    options = {"max_new_tokens": 4, "do_sample": False, "num_beams": 1}
    with observe(model) as record:
        model.generate(IDS, **options)
    cross = [matrix.shape for matrix in record.calls("model.decoder.layers.0.encoder_attn")]
    own = [matrix.shape for matrix in record.calls("model.decoder.layers.0.self_attn")]
    assert cross == [(1, 4, 1, 7)] * 4
    assert own == [(1, 4, 1, size) for size in (1, 2, 3, 4)]
    assert record["model.encoder.layers.0.self_attn"].shape == (1, 4, 7, 7)
