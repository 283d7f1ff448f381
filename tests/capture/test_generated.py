"""record.generated(): a generation as one matrix a layer, equal to the finished text read once more."""

import pytest
import torch
import transformers as hf

from clearhead.capture import observe
from clearhead.errors import CaptureError, OptionError

from .families import GPT, GROUPED, cache_name

IDS = torch.tensor([[5, 3, 9, 7, 11, 4, 8], [3, 4, 15, 6, 7, 18, 9]])
PADDED = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [1] * 7])
OPEN = {"eos_token_id": None}
MODELS = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED | OPEN)),
    "mistral, window": lambda: hf.MistralForCausalLM(hf.MistralConfig(**GROUPED | OPEN, sliding_window=4)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**GPT | OPEN)),
    "gpt-j, own code": lambda: hf.GPTJForCausalLM(hf.GPTJConfig(**GPT | OPEN, rotary_dim=4)),
}
WAYS = {
    "greedy": {},
    "padded": {"attention_mask": PADDED},
    "static": {"cache_implementation": "static"},
    "static, padded": {"cache_implementation": "static", "attention_mask": PADDED},
    "beams": {"num_beams": 4, "num_return_sequences": 2},
    "beams, padded": {"num_beams": 3, "attention_mask": PADDED},
    "static beams": {"num_beams": 3, "cache_implementation": "static"},
}
CASES = [("llama", way) for way in WAYS]
CASES += [(model, way) for model in list(MODELS)[1:] for way in ("greedy", "padded", "beams")]


def generate(model, **options):
    with observe(model) as record:
        out = model.generate(
            IDS, max_new_tokens=9, return_dict_in_generate=True, **{"do_sample": False} | options
        )  # fmt: skip
    assert record.missed == []
    return record, out


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "way"), [pytest.param(*case, marks=() if case in CASES[:2] else pytest.mark.slow) for case in CASES]
)
def test_a_generation_is_the_finished_text_read_once_more(kind, way):
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    record, out = generate(model, **WAYS[way])
    mask = WAYS[way].get("attention_mask")
    text = out.sequences[:, :-1]
    if mask is not None:
        mask = torch.cat([mask, torch.ones(2, text.shape[1] - 7, dtype=torch.long)], 1)
    model.set_attn_implementation("eager")
    places = {} if mask is None else {"position_ids": (mask.cumsum(1) - 1).clamp(0)}
    exact = model(text, attention_mask=mask, output_attentions=True, **places).attentions
    matrices = record.generated(out.beam_indices) if "beams" in way else record.generated()
    assert len(matrices) == 2
    for matrix, dense in zip(matrices, exact, strict=True):
        assert matrix.shape == (len(text), 4, 15, 15)
        real = torch.ones(len(text), 15) if mask is None else mask  # a padded query's row may be anything
        off = (matrix.to_dense() - dense) * real[:, None, :, None]
        assert off.abs().max() < 4e-6
        assert matrix.topk(2)[1].shape == (len(text), 4, 15, 2)


def test_beams_are_by_default_those_of_the_last_step():
    torch.manual_seed(0)
    model = MODELS["llama"]().eval()
    texts, prepare = [], model.prepare_inputs_for_generation
    model.prepare_inputs_for_generation = lambda ids, *args, **named: texts.append(ids) or prepare(ids, *args, **named)
    record, _ = generate(model, num_beams=4)
    del model.prepare_inputs_for_generation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        exact = model(texts[-1], output_attentions=True).attentions[1]
    torch.testing.assert_close(record.generated()[1].to_dense(), exact, rtol=0, atol=4e-6)


def test_no_mask_of_the_whole_is_made_for_padding():
    torch.manual_seed(0)
    record, _ = generate(MODELS["llama"]().eval(), attention_mask=PADDED)
    assert {tuple(matrix._logits.attention.allow.shape) for matrix in record.generated()} == {(2, 1, 1, 15)}


class RoundedLater(hf.DynamicCache):
    """A cache that rounds its keys after every fourth step, as a quantised cache does."""

    def update(self, keys, values, layer, *args, **named):
        keys, values = super().update(keys, values, layer, *args, **named)
        if keys.shape[2] % 4 == 0:
            self.layers[layer].keys = (keys * 8).round() / 8
        return keys, values


@torch.no_grad()
def test_keys_that_change_after_they_were_read_are_kept_in_their_versions():
    torch.manual_seed(0)
    model = MODELS["llama"]().eval()
    record, _ = generate(model, **{cache_name(model): RoundedLater()}, use_cache=True)
    for name, matrix in zip(record, record.generated(), strict=True):
        row, dense = 0, matrix.to_dense()
        for step in record.calls(name):
            rows, keys = step.shape[2:]
            torch.testing.assert_close(dense[:, :, row : row + rows, :keys], step.to_dense(), rtol=0, atol=1e-6)
            row += rows
        assert row == 15
        assert matrix._logits.key.shape[-1] > 6  # more than one version
    whole = record.joined()
    assert "keys of one position differ" in whole.missed[0].reason


@torch.no_grad()
def test_the_tensors_of_a_cache_may_be_overwritten_after_the_record_is_made():
    torch.manual_seed(0)
    model, cache = MODELS["llama"]().eval(), hf.DynamicCache()
    record, _ = generate(model, **{cache_name(model): cache})
    before = record.generated()[0].to_dense()
    for layer in cache.layers:
        layer.keys.zero_()
    assert torch.equal(record.generated()[0].to_dense(), before)


def test_what_is_no_generation_is_refused():
    torch.manual_seed(0)
    model = MODELS["llama"]().eval()
    with observe(model) as record:
        with pytest.raises(CaptureError, match="nothing was recorded"):
            record.generated()
        model(IDS)
    assert record.generated()[0].shape == (2, 4, 7, 7)
    record, out = generate(model, num_beams=3)
    with pytest.raises(OptionError, match="beam_indices"):
        record.generated(out.sequences)
