"""The real model: every head of all-MiniLM-L6-v2 equals its eager weights, and its output does not change."""

from dataclasses import replace

import torch

from clearhead import capture
from clearhead.capture.models.reading import TOKENS_SHOWN, Target
from clearhead.views.comparison import compare
from clearhead.views.grouping import grouped
from clearhead.views.rollout import rolled

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


def test_a_cell_that_ends_with_a_long_reading_shows_a_few_lines(demo):
    reading = capture.read(demo, "tired " * 173)
    for view in (reading, rolled(reading), grouped(reading, "words")):
        first, second, *_ = repr(view).splitlines()
        assert f"{view.model_name!r}, 175 tokens: '[CLS]' 'tired' 'tired'" in first
        assert first.count("tired") == TOKENS_SHOWN - 1
        assert second == repr(view.record).splitlines()[0]
        assert len(repr(view).splitlines()) < 10
    assert "L=175 S=175" in repr(rolled(reading))
    assert "L=175 S=175" in repr(grouped(reading, "words"))
    assert repr(capture.read(demo, "It sleeps")).startswith(
        "Reading('all-MiniLM-L6-v2', 4 tokens: '[CLS]' 'it' 'sleeps' '[SEP]')"
    )
    spoken = replace(reading, decoder=Target(["a"] * 7, [1] * 7, [False] * 7))
    assert "175 tokens and 7 of the decoder" in repr(spoken)
    assert repr(demo) == "Loaded('all-MiniLM-L6-v2', BertModel, reads text, at most 512 tokens)"
    seeing = replace(demo, tokenizer=None, processor=object())
    assert repr(seeing) == "Loaded('all-MiniLM-L6-v2', BertModel, reads pictures)"
    short = capture.read(demo, "It sleeps")
    assert (
        repr(compare(short, short)) == "Comparison('all-MiniLM-L6-v2' and 'all-MiniLM-L6-v2', 72 × 72 heads, 4 tokens)"
    )
