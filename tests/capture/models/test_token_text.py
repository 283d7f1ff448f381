"""Tokens by their letters, for each kind of tokenizer."""

import pytest
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from clearhead.capture.models.token_text import letters, readable

TEXT = "We met in the café, 日本 😀"


def byte_level(texts, size):
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


def byte_fallback():
    pieces = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁the", "▁caf", "é", "s"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>"), vocabulary


def whole(names):
    """Return the text that names spell, counting each piece of a character once."""
    import re

    return re.sub(r"(.)\[(\d)/(\d)\]", lambda found: found[1] if found[2] == "1" else "", "".join(names))


@pytest.mark.parametrize("size", [257, 300, 330])
def test_byte_level_tokens_spell_what_was_typed(size):
    tokenizer = byte_level([TEXT] * 40, size)
    names = letters(tokenizer, tokenizer(TEXT).input_ids)
    assert whole(names) == TEXT
    assert "Ã" not in "".join(names)


def test_pieces_of_a_character_are_marked():
    tokenizer = byte_level(["abc"], 257)
    assert letters(tokenizer, tokenizer("aé日").input_ids) == [
        "a", "é[1/2]", "é[2/2]", "日[1/3]", "日[2/3]", "日[3/3]",
    ]  # fmt: skip


def test_special_tokens_stay():
    tokenizer = byte_level([TEXT] * 40, 330)
    ids = [*tokenizer("é").input_ids, tokenizer.eos_token_id, *tokenizer("é").input_ids]
    assert letters(tokenizer, ids)[-2 if len(ids) == 3 else len(ids) // 2] == "<end>"


def test_bytes_that_are_no_character_are_shown_as_bytes():
    tokenizer = byte_level(["abc"], 257)
    assert letters(tokenizer, tokenizer("日").input_ids[:2]) == ["<0xE6>", "<0x97>"]


def test_sentencepiece_bytes_and_spaces():
    tokenizer, vocabulary = byte_fallback()
    pieces = ["<s>", "▁the", "▁caf", "é", "▁", "<0xE6>", "<0x97>", "<0xA5>", "s"]
    names = letters(tokenizer, [vocabulary[piece] for piece in pieces])
    assert names == ["<s>", " the", " caf", "é", " ", "日[1/3]", "日[2/3]", "日[3/3]", "s"]
    assert readable(pieces) == names


def test_wordpiece_stays_as_it_is():
    pieces = ["[CLS]", "the", "un", "##like", "café", "[SEP]"]
    vocabulary = {piece: number for number, piece in enumerate(["[UNK]", *pieces])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=made, cls_token="[CLS]", sep_token="[SEP]")
    assert letters(tokenizer, [vocabulary[piece] for piece in pieces]) == pieces
    assert readable(pieces) == pieces


def test_words_that_only_look_like_bytes():
    for words in (["café", "Ã"], ["Łódź"], ["ĠcafÃ"], ["<s>", "Ā"], []):
        assert readable(words) == words


def test_half_a_surrogate_pair_is_shown_as_bytes():
    assert whole(readable(["the", "\ud83d", "▁mat"])) == "the<0xED><0xA0><0xBD> mat"
