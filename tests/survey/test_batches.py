"""Texts become batches of nearly equal lengths, the same ones whatever their order, and none is lost."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clearhead.capture import Loaded
from clearhead.errors import ModelError
from clearhead.survey.measuring.batches import PADDING, SMALLEST, Tokens, batches, longest, pad_id, tokenize
from survey.made import TEXTS, induction


def of_lengths(lengths: list[int]) -> list[Tokens]:
    return [Tokens(place, [place + 1] * length, [False] * length, False) for place, length in enumerate(lengths)]


@given(st.lists(st.integers(1, 90), min_size=1, max_size=60), st.integers(1, 400))
def test_each_text_is_in_one_batch_and_whole(lengths: list[int], most: int) -> None:
    rows = of_lengths(lengths)
    made = batches(rows, most, 0)
    assert sorted(text for batch in made for text in batch.texts) == list(range(len(rows)))
    for batch in made:
        assert batch.ids.numel() <= most or len(batch.texts) == 1
        for place, text in enumerate(batch.texts):
            assert batch.ids[place].tolist() == rows[text].ids + [0] * (batch.ids.shape[1] - lengths[text])
            assert int(batch.mask[place].sum()) == lengths[text]
        tokens = int(batch.mask.sum())
        few = batch.ids.numel() - tokens <= PADDING * batch.ids.numel()
        last = max(batch.lengths.tolist())
        assert few or tokens - last < SMALLEST * most or batch is made[-1]


def test_a_corpus_of_sentences_is_padded_little() -> None:
    make = torch.Generator().manual_seed(0)
    lengths = (torch.randn(512, generator=make).exp() * 20).long().clamp(2, 300).tolist()
    made = batches(of_lengths(lengths), 2048, 0)
    assert sum(lengths) / sum(batch.ids.numel() for batch in made) > 0.9


def test_tokens_are_those_of_the_tokenizer_cut_where_they_are_too_many() -> None:
    loaded = induction()
    rows = tokenize(loaded, TEXTS, 20)
    assert [row.text for row in rows] == list(range(len(TEXTS)))
    for row, text in zip(rows, TEXTS, strict=True):
        ids = loaded.tokenizer(text)["input_ids"]
        assert row.ids == loaded.tokenizer(text, truncation=True, max_length=20)["input_ids"]
        assert row.cut == (len(ids) > 20)
    assert tokenize(loaded, [], 20) == []


def test_more_tokens_than_a_model_takes_are_refused() -> None:
    loaded: Loaded = induction()
    assert longest(loaded, None) == loaded.max_length == 512
    assert longest(loaded, 11) == 11
    with pytest.raises(ModelError, match="--max-length is 513, and induction takes at most 512"):
        longest(loaded, 513)
    assert isinstance(pad_id(loaded), int)
