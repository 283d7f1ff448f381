"""Options and folders that would give another survey than asked for are refused, with the reason."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from clearhead import cli, files
from clearhead.capture import load
from clearhead.errors import ModelError, OptionError
from clearhead.survey import Settings, checked_asks, open_corpus, survey
from clearhead.survey.folder import SurveyFolder
from clearhead.survey.measuring.batches import longest
from clearhead.survey.measuring.layout import Layout, digest
from survey.made import induction, write_lines


def test_a_folder_inside_the_texts_is_refused(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    path = write_lines(texts)
    for inside in (texts, texts / "out", texts / "a" / ".." / "out"):
        with pytest.raises(OptionError, match="inside the folder of texts"):
            SurveyFolder.at(inside).check_apart(texts)
    (tmp_path / "link").symlink_to(texts)
    with pytest.raises(OptionError, match="inside the folder of texts"):
        SurveyFolder.at(tmp_path / "link" / "out").check_apart(texts)
    SurveyFolder.at(tmp_path / "out").check_apart(texts)
    SurveyFolder.at(texts / "out").check_apart(path)  # a file: nothing else is read


def test_a_survey_refuses_them_before_it_reads(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="a survey is written by pyarrow: pip install 'clearhead[survey]'")
    path = write_lines(tmp_path)
    done = CliRunner().invoke(
        cli.app, ["survey", "induction", str(tmp_path), "--out", str(tmp_path / "out"), "--no-ray"]
    )
    assert done.exit_code == 2
    assert "inside the folder of texts" in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()
    with pytest.raises(OptionError, match=r"--address is 127\.0\.0\.1:1, and --no-ray"):
        survey("induction", open_corpus(path), tmp_path / "out", ray=False, address="127.0.0.1:1")
    survey("induction", open_corpus(path), tmp_path / "out", Settings(limit=1), ray=False, workers=1)
    done = CliRunner().invoke(cli.app, ["survey", "report", str(tmp_path / "out"), "--studio", "javascript:alert(1)"])
    assert "expected an address that begins with http" in " ".join(done.stderr.split())


def test_no_ask_at_all_and_options_for_other_files_are_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path)
    (tmp_path / "texts.jsonl").write_text('{"text": "words"}\n')
    for asks in ("", " ", ",", []):
        with pytest.raises(OptionError, match=r"--ask names nothing\. Give some of scores, "):
            checked_asks(asks)
    with pytest.raises(OptionError, match=r"is read as plain text, which has no column 'body'\. Give Parquet or JSON"):
        open_corpus(path, column="body")
    (tmp_path / "texts.csv").write_text("id,text\n3,words\n")
    with pytest.raises(ModelError, match="is a table, whose lines are not texts"):
        open_corpus(tmp_path / "texts.csv")
    with pytest.raises(OptionError, match=r"is JSON lines, where each row is a text, so it takes no --texts"):
        open_corpus(tmp_path / "texts.jsonl", texts="paragraph")


def test_a_length_without_room_for_words_is_refused() -> None:
    """With a length below the special tokens, tokenizers did not cut: every text was surveyed whole."""
    bert = load(None)
    for length in (1, 2):
        with pytest.raises(ModelError, match=r"adds 2 special tokens to every text\. Give 3 or more"):
            longest(bert, length)
    assert longest(bert, 3) == 3
    assert longest(induction(), 2) == 2


def test_the_digest_knows_every_parameter_the_configuration_and_the_tokenizer() -> None:
    loaded, again = induction(), induction()
    before = digest(loaded)
    Layout.of(loaded)  # tokenizing sets truncation and padding in the tokenizer, which decide nothing here
    loaded.tokenizer(["words " * 999], truncation=True, max_length=5)
    assert digest(loaded) == digest(again) == before
    for parameter in list(loaded.model.parameters())[::5]:
        place = parameter.data.view(-1)[parameter.numel() // 2 + parameter.numel() // 7 :][:1]
        kept = place.clone()
        place += 2.0**-6
        assert digest(loaded) != before
        place.copy_(kept)
    assert digest(loaded) == before
    loaded.model.config.an_option = 3
    assert digest(loaded) != before
    rules = json.loads(again.tokenizer.backend_tokenizer.to_str())
    rules["normalizer"] = {"type": "NFKC"}
    from tokenizers import Tokenizer

    again.tokenizer._tokenizer = Tokenizer.from_str(json.dumps(rules))
    assert digest(again) != before


def test_the_digest_of_every_width_of_numbers() -> None:
    loaded = induction()
    seen = {digest(loaded)}
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        loaded.model.to(dtype)
        seen.add(digest(loaded))
    assert len(seen) == 4


def test_two_columns_of_one_name_and_an_empty_arrow_file(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="tables are read by pyarrow: pip install 'clearhead[survey]'")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "twice.parquet")
    with pytest.raises(ModelError, match="several columns 'text'"):
        open_corpus(tmp_path / "twice.parquet")
    (tmp_path / "empty.arrow").write_bytes(b"")
    with pytest.raises(ModelError, match="cannot be read") as raised:
        open_corpus(tmp_path / "empty.arrow")
    assert "null character" not in str(raised.value)


def test_only_a_path_with_a_null_character_is_said_to_have_one() -> None:
    with pytest.raises(ValueError, match="null") as raised:
        open("a\0b")  # noqa: PTH123, SIM115 (it does not open)
    assert "a path cannot hold a null character" in str(files.unreadable("x", raised.value))
    assert "null or length 0" in str(files.unreadable("x", ValueError("message was null or length 0")))
