"""`see` and `compare` on models of every kind: a picture or one sentence, never a traceback."""

import json
import warnings

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from typer.testing import CliRunner

from clearhead import cli

TEXT, TARGET = "a red kite flew", "ein Drachen flog"
SIZE = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 1,
}
SIZE |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
SIZE |= {"decoder_start_token_id": 0}
GPT = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 1}


def words():
    made = Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<pad>", "</s>", "<unk>"]
    made.train_from_iterator([TEXT, TARGET], trainers.WordLevelTrainer(special_tokens=special, show_progress=False))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=64, **names)


COUNT = len(words())
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
KINDS = {
    "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(vocab_size=COUNT, pad_token_id=0, eos_token_id=1, **T5)),
    "bart": lambda: hf.BartForConditionalGeneration(hf.BartConfig(vocab_size=COUNT, **SIZE)),
    "marian": lambda: hf.MarianMTModel(hf.MarianConfig(vocab_size=COUNT, **SIZE)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=COUNT, **GPT)),
    "gpt2, too few embeddings": lambda: hf.GPT2Model(hf.GPT2Config(vocab_size=2, **GPT)),
    "whisper": lambda: hf.WhisperModel(
        hf.WhisperConfig(vocab_size=COUNT, num_mel_bins=8, max_source_positions=20, max_target_positions=20, **SIZE)
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder for each kind of model, made when it is asked for."""
    known = {}

    def folder(kind):
        if kind not in known:
            place = known[kind] = tmp_path_factory.mktemp("model")
            torch.manual_seed(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # transformers moves generation settings into a file of their own
                KINDS[kind]().save_pretrained(place)
            words().save_pretrained(place)
        return str(known[kind])

    return folder


def clearhead(*arguments):
    return CliRunner().invoke(cli.app, list(arguments))


@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_an_encoder_decoder_shows_its_encoder_and_says_so(folders, kind):
    result = clearhead("see", TEXT, "--model", folders(kind))
    assert result.exit_code == 0, result.output
    assert "The encoder alone is shown" in result.output
    assert "1 layer · 2 heads" in result.output


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_with_a_target_it_shows_both_sides(folders, kind):
    listed = json.loads(clearhead("see", TEXT, "--model", folders(kind), "--target", TARGET, "--json").stdout)
    assert listed["decoder_tokens"] == ["<pad>", *TARGET.split()]
    cross = listed["layers"][2]
    assert cross["queries"]["tokens"] == listed["decoder_tokens"]
    assert cross["keys"]["tokens"] == TEXT.split()
    shown = clearhead("see", TEXT, "--model", folders(kind), "--target", TARGET, "--layer", "2").output
    assert "rows: queries (decoder)" in shown
    assert "Drachen   2" in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [["--rollout"], ["--scores"], ["--html"], ["--png", "--layer", "2"], ["--head", "1"]],
    ids=lambda more: more[0],
)
def test_every_way_to_see_it_works(folders, more, tmp_path):
    files = {"--html": tmp_path / "a.html", "--png": tmp_path / "a.png"}
    options = [*more[:1], *([str(files[more[0]])] if more[0] in files else []), *more[1:]]
    result = clearhead("see", TEXT, "--model", folders("bart"), "--target", TARGET, *options)
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_two_encoder_decoders_are_compared(folders, tmp_path):
    arguments = ["compare", folders("bart"), folders("marian"), TEXT, "--target", TARGET]
    found = json.loads(clearhead(*arguments, "--json").stdout)
    assert len(found["same_place"]) == len(found["best"]) == 6
    sides = {0: "encoder", 1: "decoder", 2: "cross"}
    assert all(sides[entry["head"][0]] == sides[entry["other"][0]] for entry in found["best"])
    assert "Layer 2, head 0" in clearhead(*arguments, "--layer", "2").stdout
    drawn = clearhead(*arguments, "--layer", "2", "--png", str(tmp_path / "a.png"))
    assert (drawn.exit_code, drawn.stdout) == (0, "")  # the head is in the file


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("whisper", [], "has no preprocessor_config.json"),
        ("gpt2", ["--target", TARGET], "not an encoder-decoder"),
        ("bart", ["--target", " "], "target is empty"),
        ("bart", ["--target", "a kite " * 999], "the target is"),
        ("marian", ["--target", ""], "target is empty"),
        ("marian", ["--target", "a kite " * 999], "the target is 1999 tokens long and"),
        ("marian", ["--target", "ein Drache\udcff"], "holds half a character at place 10"),  # not UTF-8 in a shell
        ("gpt2", ["--picture", "kite.png"], "reads text, and kite.png is a picture"),
        ("gpt2", ["--sound", "kite.wav"], "does not hear sound"),
        ("gpt2", ["--picture", "kite.png", "--sound", "kite.wav"], "give one of them"),
        ("gpt2, too few embeddings", [], "belong to different models"),
    ],
)
def test_what_cannot_be_seen_is_one_sentence(folders, kind, more, said):
    result = clearhead("see", TEXT, "--model", folders(kind), *more)
    assert (result.exit_code, type(result.exception)) == (2, SystemExit)
    assert said in " ".join(result.stderr.split())


def damaged(place, how):
    if how == "weights":
        (place / "model.safetensors").write_bytes(b"junk")
    elif how == "tokenizer":
        (place / "tokenizer.json").write_text("{}")
    elif how == "config":
        (place / "config.json").write_text('{"model_type": "gpt2", "n_head": "two"}')
    else:
        kept = {name: part for name, part in load_file(place / "model.safetensors").items() if "attn" not in name}
        save_file(kept, place / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("how", ["weights", "tokenizer", "config", "no attention"])
def test_a_broken_folder_is_one_sentence(tmp_path, how):
    hf.GPT2Model(hf.GPT2Config(vocab_size=COUNT, **GPT)).save_pretrained(tmp_path)
    words().save_pretrained(tmp_path)
    damaged(tmp_path, how)
    result = clearhead("see", TEXT, "--model", str(tmp_path))
    assert (result.exit_code, type(result.exception)) == (2, SystemExit)
    assert "would be random" in result.stderr if how == "no attention" else "cannot be loaded" in result.stderr


NOTED = ["see", "see words", "see head", "see rollout", "see scores", "compare", "compare head"]


@pytest.mark.parametrize("command", NOTED)
def test_missing_weights_are_said_once(tmp_path, command):
    whole, lacking = str(tmp_path / "whole"), str(tmp_path / "lacking")
    for folder in (whole, lacking):
        hf.GPT2Model(hf.GPT2Config(vocab_size=COUNT, **GPT)).save_pretrained(folder)
        words().save_pretrained(folder)
    weights = tmp_path / "lacking" / "model.safetensors"
    save_file({name: part for name, part in load_file(weights).items() if "ln_f" not in name}, weights)
    see = ["see", TEXT, "--model", lacking]
    compare = ["compare", whole, lacking, TEXT]
    drawn = {"see": see, "see words": [*see, "--units", "words"], "see head": [*see, "--head", "1"]}
    drawn |= {"see rollout": [*see, "--rollout"], "see scores": [*see, "--scores"]}
    drawn |= {"compare": compare, "compare head": [*compare, "--head", "1"]}
    said = "has no weights for 2 of its parameters"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = clearhead(*drawn[command])
        assert result.exit_code == 0, result.output
        assert " ".join(result.stdout.split()).count(said) == 1
        assert not [warning for warning in caught if said in str(warning.message)]
        clearhead(*drawn[command], "--json")
    assert sum(said in str(warning.message) for warning in caught) == 1  # a list's reader is warned on standard error
