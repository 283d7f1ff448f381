"""Where queries and keys stand, whatever the cache does; and the calls of a generation as one matrix."""

import pytest
import torch
import transformers as hf

from clearhead.capture import Record, observe, score_record
from clearhead.capture.positions import Axis, Positions, assumed
from clearhead.matrix import AttentionMatrix

from .families import ENCODER_DECODER, GROUPED, SIZE

NAME = "model.layers.1.self_attn"
IDS = torch.tensor([[5, 3, 9, 7, 11, 4, 8]])
MISTRAL = {"sliding_window": 5}


def causal(kind=hf.LlamaForCausalLM, config=hf.LlamaConfig, **options):
    torch.manual_seed(0)
    return kind(config(**{**GROUPED, "eos_token_id": None}, **options)).eval()


def bart():
    torch.manual_seed(0)
    options = {**ENCODER_DECODER, "eos_token_id": None}
    return hf.BartForConditionalGeneration(hf.BartConfig(**options, max_position_embeddings=64)).eval()


def generated(model, ids=IDS, **options):
    with observe(model) as record:
        tokens = model.generate(ids, do_sample=False, **{"max_new_tokens": 6, "num_beams": 1, **options})
    return record, tokens


def exact(model, tokens, **options):
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(tokens, output_attentions=True, **options).attentions[1]


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_step_is_at_its_place_in_the_text(cache):
    record, _ = generated(causal(), cache_implementation=cache)
    places = record.positions(NAME)
    assert [place.queries.positions for place in places] == [range(7), *(range(n, n + 1) for n in range(7, 12))]
    assert all(place.keys.start == 0 for place in places)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize(
    "make", [causal, lambda: causal(hf.MistralForCausalLM, hf.MistralConfig, **MISTRAL)], ids=["llama", "window"]
)
def test_the_calls_of_a_generation_are_one_matrix(make, cache):
    model = make()
    record, tokens = generated(model, cache_implementation=cache)
    whole = record.joined()
    assert whole.missed == []
    assert whole.positions(NAME) == (assumed(12, 12),)
    torch.testing.assert_close(whole[NAME].to_dense(), exact(model, tokens[:, :-1]), rtol=0, atol=1e-6)


def test_a_window_that_has_moved_on_begins_at_a_later_key():
    record, _ = generated(causal(hf.MistralForCausalLM, hf.MistralConfig, **MISTRAL))
    assert record.positions(NAME)[-1].keys.positions == range(7, 12)


def test_a_cache_cropped_after_refused_drafts():
    model = causal()
    torch.manual_seed(3)
    draft = hf.LlamaForCausalLM(hf.LlamaConfig(**{**GROUPED, "eos_token_id": None})).eval()
    record, tokens = generated(model, max_new_tokens=9, assistant_model=draft, pad_token_id=0)
    starts = [place.queries.start for place in record.positions(NAME)]
    ends = [place.queries.positions[-1] + 1 for place in record.positions(NAME)]
    assert any(start < end for start, end in zip(starts[1:], ends, strict=False))  # some drafts were refused
    dense = record.joined()[NAME].to_dense()
    torch.testing.assert_close(dense, exact(model, tokens[:, : dense.shape[2]]), rtol=0, atol=1e-6)


def test_left_padding_in_a_batch():
    model = causal()
    ids = torch.randint(3, 23, (2, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    record, tokens = generated(model, ids, attention_mask=mask)
    dense = record.joined()[NAME].to_dense()
    mask = torch.cat([mask, torch.ones(2, 5, dtype=mask.dtype)], 1)
    wanted = exact(model, tokens[:, :-1], attention_mask=mask)
    torch.testing.assert_close(dense[0], wanted[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(dense[1, :, 3:], wanted[1, :, 3:], rtol=0, atol=1e-6)


def test_padding_does_not_change_scores():
    model = causal()
    ids = torch.tensor([[5, 3, 9, 5, 3, 11, 4]])
    padded, mask = torch.cat([torch.zeros(1, 2, dtype=torch.long), ids], 1), torch.ones(1, 9, dtype=torch.long)
    mask[0, :2] = 0
    with torch.no_grad(), observe(model) as alone:
        model(ids)
    with torch.no_grad(), observe(model) as record:
        model(padded, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp_min(0))
    for ours, theirs in zip(score_record(record, padded), score_record(alone, ids), strict=True):
        for field in ("previous_token", "first_token", "duplicate_token", "induction", "breadth", "positional"):
            assert getattr(ours, field) == pytest.approx(getattr(theirs, field), abs=1e-5), field


def test_left_out_beams_are_reported():
    record, _ = generated(causal(), num_beams=3)
    assert all("calls are left out: keys of one position differ" in item.reason for item in record.joined().missed)
    assert {item.name for item in record.joined().missed} == set(record)


def test_an_encoder_decoder_has_two_texts():
    record, _ = generated(bart(), max_new_tokens=4)
    whole = record.joined()
    cross, own = (f"model.decoder.layers.1.{kind}" for kind in ("encoder_attn", "self_attn"))
    assert whole.positions(cross) == (Positions(Axis("decoder", range(4)), Axis("input", range(7))),)
    assert whole.positions(own) == (Positions(Axis("decoder", range(4)), Axis("decoder", range(4))),)
    assert whole.positions("model.encoder.layers.0.self_attn") == (assumed(7, 7),)
    assert (whole.length("input"), whole.length("decoder")) == (7, 4)
    assert record.positions(cross)[-1].queries.positions == range(3, 4)


def test_texts_of_one_length_are_still_two():
    model = bart()
    with torch.no_grad(), observe(model) as record:
        model(IDS)  # the decoder reads the same ids, moved by one
    where = record.positions("model.decoder.layers.0.encoder_attn")[-1]
    assert (where.queries.sequence, where.keys.sequence) == ("decoder", "input")


def test_a_second_text_is_distinguished_from_the_first():
    model = bart()
    with observe(model) as record:
        for length in (7, 5):
            model.generate(IDS[:, :length], max_new_tokens=4, do_sample=False, num_beams=1)
    whole = record.joined()
    assert whole["model.encoder.layers.0.self_attn"].shape == (1, 4, 5, 5)
    reasons = {item.name: item.reason for item in whole.missed}
    assert reasons["model.decoder.layers.0.self_attn"] == (
        "4 of its 8 calls are left out: they belong to an earlier text"
    )


def test_layers_that_share_one_module_are_all_there():
    model = hf.AlbertModel(hf.AlbertConfig(**{**SIZE, "num_hidden_layers": 3}, embedding_size=24)).eval()
    with torch.no_grad(), observe(model) as record:
        model(IDS)
    whole = record.joined()
    assert [name[-3:] for name in whole] == ["[0]", "[1]", "[2]"]
    for ours, theirs in zip(whole.values(), record.calls(next(iter(record))), strict=True):
        assert torch.equal(ours.to_dense(), theirs.to_dense())


def test_pooled_states_and_windows_of_an_image_are_not_tokens():
    torch.manual_seed(0)
    options = {"d_model": 24, "n_head": 4, "d_head": 6, "d_inner": 17, "block_sizes": [1, 1], "num_decoder_layers": 1}
    funnel = hf.FunnelModel(hf.FunnelConfig(vocab_size=23, **options)).eval()
    with torch.no_grad(), observe(funnel) as record:
        funnel(torch.randint(3, 23, (1, 11)))
    kinds = [
        (matrix.shape[2], place.queries.sequence)
        for name, matrix in record.items()
        for place in record.positions(name)[-1:]
    ]
    assert {kind for size, kind in kinds if size == 11} == {"input"}
    assert {kind for size, kind in kinds if size != 11} == {"other"}
    swin = {"image_size": 12, "patch_size": 1, "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2]}
    model = hf.SwinModel(hf.SwinConfig(**swin, window_size=3)).eval()
    with torch.no_grad(), observe(model) as record:
        model(torch.randn(2, 3, 12, 12))
    assert {record.positions(name)[-1].queries.sequence for name in record} == {"other"}


def test_torchs_own_decoder():
    torch.manual_seed(0)
    model = torch.nn.Transformer(12, 2, 1, 1, 17, batch_first=True).eval()
    with torch.no_grad(), observe(model) as record:
        model(torch.randn(1, 7, 12), torch.randn(1, 5, 12))
    where = record.positions("decoder.layers.0.multihead_attn")[-1]
    assert (where.queries, where.keys) == (Axis("decoder", range(5)), Axis("input", range(7)))


def test_a_generation_is_scored_whole():
    model = causal()
    record, tokens = generated(model)
    with torch.no_grad(), observe(model) as at_once:
        model(tokens[:, :-1])
    ours, theirs = score_record(record, tokens), score_record(at_once, tokens[:, :-1])
    assert len(ours) == len(theirs) == 8
    for one, other in zip(ours, theirs, strict=True):
        for field in ("previous_token", "first_token", "breadth", "positional", "offset"):
            assert getattr(one, field) == pytest.approx(getattr(other, field), abs=1e-5), field


def test_a_step_alone_is_scored_at_its_place():
    keys = torch.nn.functional.one_hot(torch.arange(7), 7).float()[None, None]
    step = AttentionMatrix(60 * keys[:, :, 5:6], keys, scale=1.0)  # the last token looks at the one before it
    where = assumed(1, 7, 6)
    (row,) = score_record(Record.of({"a": step}, {"a": where}), IDS)
    assert row.previous_token == pytest.approx(1)
    assert (row.positional, row.offset) == (1.0, -1)


def test_cross_attention_has_breadth_alone():
    record, tokens = generated(bart(), max_new_tokens=4)
    rows = {row.layer: row for row in score_record(record, IDS, decoder_token_ids=tokens)}
    cross = rows["model.decoder.layers.0.encoder_attn"]
    assert cross.previous_token != cross.previous_token  # NaN
    assert 0 < cross.breadth <= 1
    assert rows["model.decoder.layers.0.self_attn"].previous_token > 0


def test_too_few_tokens_are_refused():
    from clearhead.errors import OptionError

    record, _ = generated(causal())
    with pytest.raises(OptionError, match=r"shape \(1, 7\), and the record has 12 positions"):
        score_record(record, IDS)


def test_a_record_says_what_is_in_it():
    record, _ = generated(bart(), max_new_tokens=4)
    said = repr(record)
    assert said.startswith("Record(6 modules, 18 calls, ")
    assert "model.encoder.layers.0.self_attn … model.encoder.layers.1.self_attn (2): B=1 H=4 L=7 S=7" in said
    assert "model.decoder.layers.0.encoder_attn: B=1 H=4 L=1 S=7, last of 4 calls" in said
    assert repr(Record()) == "Record(0 modules, 0 calls, 0 bytes, 0 missed)"


class Chunked(torch.nn.Module):
    """Attention to all tokens, a few queries at a time, with a causal mask or without one."""

    num_heads = 3

    def __init__(self, is_causal):
        super().__init__()
        self.is_causal = is_causal

    def forward(self, x):
        q = x.unflatten(-1, (3, 8)).transpose(1, 2)
        places, outs = torch.arange(q.shape[2]), []
        for chunk in places.split(5):
            mask = places <= chunk[:, None] if self.is_causal else None
            outs.append(torch.nn.functional.scaled_dot_product_attention(q[:, :, chunk], q, q, attn_mask=mask))
        return torch.cat(outs, 2).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("is_causal", [False, True])
def test_chunks_of_queries_do_not_say_that_they_begin_at_the_first_token(is_causal):
    model, x = torch.nn.Sequential(Chunked(is_causal)), torch.randn(2, 13, 24)
    with torch.no_grad(), observe(model) as record:
        model(x)
    places = record.positions("0")
    assert [len(place.queries.positions) for place in places] == [5, 5, 3]
    assert {place.queries.sequence for place in places} == {"other"}
    assert {(place.keys.sequence, place.keys.positions) for place in places} == {("input", range(13))}
    whole = torch.cat([A.to_dense() for A in record.calls("0")], 2).double()
    q = x.double().unflatten(-1, (3, 8)).transpose(1, 2)
    logits = q @ q.mT / 8**0.5
    if is_causal:
        logits = logits.masked_fill(torch.ones(13, 13).triu(1).bool(), -torch.inf)
    torch.testing.assert_close(whole, logits.softmax(-1), rtol=0, atol=32 * torch.finfo(torch.float32).eps)
