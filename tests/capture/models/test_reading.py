"""The real model: every head of all-MiniLM-L6-v2 equals its eager weights, and its output does not change."""

import torch

from clearhead import capture

from ..conftest import SENTENCE


def test_every_head_equals_the_models_eager_weights(demo, eager):
    reading = capture.read(demo, SENTENCE)
    assert list(reading.record) == [f"encoder.layer.{i}.attention.self" for i in range(6)]
    assert reading.record.missed == []
    for matrix, exact in zip(reading.record.values(), eager, strict=True):
        assert matrix.shape == (1, 12, 15, 15)
        torch.testing.assert_close(matrix.to_dense(), exact, rtol=0, atol=1e-5)
        torch.testing.assert_close(matrix.entropy(), torch.special.entr(exact).sum(-1), rtol=0, atol=1e-5)
        torch.testing.assert_close(matrix.received(), exact.sum(2), rtol=0, atol=1e-5)
        torch.testing.assert_close(matrix.topk(5)[0], exact.topk(5)[0], rtol=0, atol=1e-5)


def test_the_output_is_the_same_bit_for_bit(demo):
    inputs = demo.tokenizer([SENTENCE, "A shorter one"], return_tensors="pt", padding=True)
    with torch.no_grad():
        before = demo.model(**inputs).last_hidden_state
        with capture.observe(demo.model) as record:
            during = demo.model(**inputs).last_hidden_state
        after = demo.model(**inputs).last_hidden_state
    assert torch.equal(before, during)
    assert torch.equal(before, after)
    assert len(record) == 6
    padded = record["encoder.layer.0.attention.self"].to_dense()
    assert padded[1, :, :, 5:].abs().max() == 0
    torch.testing.assert_close(padded.sum(-1), torch.ones(2, 12, 15))


def test_a_reading_names_its_tokens(demo):
    reading = capture.read(demo, "It sleeps", second="Because it was tired")
    assert reading.tokens == ["[CLS]", "it", "sleeps", "[SEP]", "because", "it", "was", "tired", "[SEP]"]
    assert reading.special == [True, False, False, True, False, False, False, False, True]
    assert reading.segments == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert reading.model_name == demo.name == "all-MiniLM-L6-v2"
    assert demo.tokenizer.convert_ids_to_tokens(reading.token_ids) == reading.tokens
    assert {A.shape for A in reading.record.values()} == {(1, 12, 9, 9)}
