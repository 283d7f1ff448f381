"""ProphetNet's decoder: all its streams in one matrix, equal to the weights that the model returns for each."""

import pytest
import torch
import transformers as hf

from clearhead.capture import observe

from ..families import ids, padded

LENGTH, AHEAD = 7, 2


def prophetnet():
    torch.manual_seed(0)
    config = hf.ProphetNetConfig(
        vocab_size=23,
        hidden_size=24,
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_encoder_attention_heads=4,
        num_decoder_attention_heads=4,
        encoder_ffn_dim=17,
        decoder_ffn_dim=17,
        max_position_embeddings=64,
        ngram=AHEAD,
        num_buckets=5,
        relative_max_distance=6,
        decoder_start_token_id=1,
        bos_token_id=1,
        eos_token_id=2,
    )
    return hf.ProphetNetModel(config).eval()


def inputs():
    return {"input_ids": ids(), "attention_mask": padded("right"), "decoder_input_ids": ids(LENGTH)}


def test_every_stream_equals_the_models_own_weights():
    model = prophetnet()
    with torch.no_grad():
        plain = model(**inputs())
        with observe(model) as record:
            output = model(**inputs(), output_attentions=True)
    assert torch.equal(output.last_hidden_state, plain.last_hidden_state)
    assert torch.equal(output.last_hidden_state_ngram, plain.last_hidden_state_ngram)
    assert record.missed == []
    assert len(record) == 6
    for number in range(2):
        dense = record[f"decoder.layers.{number}.self_attn"].to_dense()
        assert dense.shape == (2, 4, (1 + AHEAD) * LENGTH, (1 + AHEAD) * LENGTH)
        torch.testing.assert_close(dense[:, :, :LENGTH, :LENGTH], output.decoder_attentions[number], rtol=0, atol=1e-6)
        for stream in range(AHEAD):
            own = slice((1 + stream) * LENGTH, (2 + stream) * LENGTH)
            both = torch.cat([dense[:, :, own, :LENGTH], dense[:, :, own, own]], -1)
            torch.testing.assert_close(both, output.decoder_ngram_attentions[number][:, stream], rtol=0, atol=1e-6)
        torch.testing.assert_close(dense.sum(-1), torch.ones(dense.shape[:3]), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_each_step_of_generation_is_seen():
    torch.manual_seed(0)
    model = hf.ProphetNetForConditionalGeneration(prophetnet().config).eval()
    given = {"input_ids": ids(), "attention_mask": padded("right")}
    with torch.no_grad(), observe(model) as record:
        output = model.generate(
            **given, max_new_tokens=4, min_new_tokens=4, do_sample=False, num_beams=1,
            output_attentions=True, return_dict_in_generate=True,
        )  # fmt: skip
    assert record.missed == []
    steps = record.calls("prophetnet.decoder.layers.1.self_attn")
    assert len(steps) == 4
    for number, (matrix, own) in enumerate(zip(steps, output.decoder_attentions, strict=True), start=1):
        assert matrix.shape == (2, 4, 1 + AHEAD, number + AHEAD)
        torch.testing.assert_close(matrix.to_dense()[:, :, :1, :number], own[1], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_term_of_its_own_is_noticed(monkeypatch: pytest.MonkeyPatch):
    model = prophetnet()
    plain = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda given, **rest: plain(1.5 * given, **rest))
    with torch.no_grad(), observe(model) as record:
        model(**inputs())
    missed = {item.name: item.reason for item in record.missed}
    assert "a term Clearhead does not know" in missed["decoder.layers.0.self_attn"]
    assert "decoder.layers.0.self_attn" not in record
