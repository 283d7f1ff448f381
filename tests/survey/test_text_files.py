"""Plain text and JSON lines: every text is read, in whichever part; anything else is refused with its line."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clearhead.errors import ModelError, OptionError
from clearhead.survey import Settings, checked_asks, open_corpus
from clearhead.survey.corpus import text_files
from clearhead.survey.corpus.parts import Corpus


def everything(corpus: Corpus, size: int = 7) -> list[str | None]:
    parts = corpus.parts(size)
    assert [part.first for part in parts] == list(range(0, corpus.texts, size))
    return [text for part in parts for text in corpus.read(part)]


LINE = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=9)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(lines=st.lists(LINE, max_size=30), end=st.sampled_from(["\n", "\r\n"]), stride=st.sampled_from([1, 3, 64]))
@pytest.mark.parametrize("form", ["line", "paragraph", "json"])
def test_every_text_is_read_in_order(
    form: str, lines: list[str], end: str, stride: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "STRIDE", stride)
    path = tmp_path / ("texts.jsonl" if form == "json" else "texts.txt")
    if form == "json":
        wanted: list[str | None] = [*lines, None]
        path.write_text(
            end.join(json.dumps({"a": 1, "text": text}) for text in wanted) + end, encoding="utf-8", newline=""
        )
    else:
        path.write_text(end.join(lines), encoding="utf-8", newline="")
        stripped = [_stripped(line) for line in lines]
        if form == "line":
            wanted = [line for line in stripped if line]
        else:
            wanted = [" ".join(block.split("\n")) for block in "\n".join(stripped).split("\n\n")]
            wanted = [text for block in wanted if (text := _stripped(str(block)))]
    if not wanted:
        with pytest.raises(ModelError, match="holds no text"):
            open_corpus(path)
        return
    corpus = open_corpus(path, texts="paragraph" if form == "paragraph" else "line")
    assert corpus.texts == len(wanted)
    assert everything(corpus) == wanted
    assert corpus.at([0, len(wanted) - 1], 7) == {n: wanted[n] or "" for n in (0, len(wanted) - 1)}


def _stripped(line: str) -> str:
    """Without the white space of ASCII at its ends, as bytes are stripped."""
    return line.strip(" \t\n\r\x0b\x0c")


def test_a_mark_of_byte_order_is_no_part_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(b"\xef\xbb\xbffirst\nsecond")
    assert everything(open_corpus(path)) == ["first", "second"]


def test_files_of_a_folder_follow_one_another_and_parts_cross_them(tmp_path: Path) -> None:
    for name, texts in (
        ("b.txt", "3\n4\n5"),
        ("a.txt", "1\n2"),
        ("c/d.md", "6\n\n7\n"),
        (".hidden.txt", "x"),
        ("e.bin", "y"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(texts)
    corpus = open_corpus(tmp_path)
    assert everything(corpus, 3) == list("1234567")
    assert everything(corpus, 100) == list("1234567")
    assert sum(part.count for part in corpus.parts(3, limit=4)) == 4


REFUSED = {
    "missing": (None, "texts.txt does not exist. Give a file of texts"),
    "empty": (b"", "holds no text"),
    "blank": (b" \n\n \r\n", "holds no text"),
    "not UTF-8": (b"one\ntwo\n\xff\xfe\n", "line 3, is not text in UTF-8"),
}
REFUSED_JSON = {
    "not JSON": (b'{"text": "a"}\n\n{"text": x}\n', r"line 3, is not JSON \(column 10: Expecting value\)"),
    "cut in the middle": (b'{"text": "a"}\n{"text": "b\n{"text": "c"}\n', r"line 2, is not JSON \(column 10: Unterm"),
    "half a character": (
        b'{"text": "\\ud83d\\ude00"}\n{"text": "a \\ud83d"}\n',
        r"line 2: 'text' has half of a character in it \(\\ud83d, .*by \\ufffd",
    ),
    "a list": (b"[1, 2]\n", "line 1, holds an array, expected an object"),
    "no key": (
        b'{"text": "a"}\n{"body": "b", "id": 3}\n',
        "line 2, has no 'text'; its keys are 'body', 'id'. Name .*--column",
    ),
    "a number": (b'{"text": 7}\n', "line 1: 'text' holds a number, not text"),
    "deep": (b"[" * 99999, "line 1, is not JSON"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_holds_no_texts_is_refused(case: str, tmp_path: Path) -> None:
    content, words = REFUSED[case]
    path = tmp_path / "texts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=words):
        open_corpus(path)


@pytest.mark.parametrize("case", REFUSED_JSON)
def test_json_lines_that_hold_no_texts_are_refused(case: str, tmp_path: Path) -> None:
    content, words = REFUSED_JSON[case]
    path = tmp_path / "texts.jsonl"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=words):
        open_corpus(path)


def test_folders_and_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no file of texts in it"):
        open_corpus(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(OptionError, match=r"is not a dataset .* takes no --split"):
        open_corpus(tmp_path, split="train")
    with pytest.raises(OptionError, match="--texts is 'word', expected line or paragraph"):
        open_corpus(tmp_path, texts="word")  # type: ignore[arg-type]
    (tmp_path / "b.jsonl").write_text('{"text": "b"}')
    with pytest.raises(ModelError, match=r"several kinds in it: plain text \(a.txt\) and JSON lines \(b.jsonl\)"):
        open_corpus(tmp_path)
    (tmp_path / "c.txt.gz").write_bytes(b"")
    with pytest.raises(ModelError, match=r"is compressed. Unpack it"):
        open_corpus(tmp_path / "c.txt.gz")


def test_a_file_that_shrinks_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join("abcdefg"))
    corpus = open_corpus(path)
    path.write_text("a\nb")
    with pytest.raises(ModelError, match="has changed while it was read: 2 texts of 7"):
        corpus.read(corpus.parts(100)[0])


def test_the_digest_is_of_the_texts_and_of_how_they_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("a b\nc\n")
    first = open_corpus(path).files[0].digest
    path.write_text("a b\nc")
    assert open_corpus(path).files[0].digest == first
    path.write_text("a\nb c")
    assert open_corpus(path).files[0].digest != first


@pytest.mark.parametrize(("given", "words"), [("scores,bogus", "'bogus'"), ("scores,,sinks", "''")])
def test_an_unknown_ask_is_refused_with_the_known_ones(given: str, words: str) -> None:
    with pytest.raises(
        OptionError, match=f"--ask has {words} in it, expected some of scores, entropy, received, sinks"
    ):
        checked_asks(given)


@pytest.mark.parametrize("name", ["sample", "limit", "max_length", "part_texts", "batch_tokens", "threads"])
@pytest.mark.parametrize("value", [0, -3, 1.5, True])
def test_settings_are_whole_numbers(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"{name} is {value}, expected a whole number of 1 or more"):
        Settings(**{name: value})


@given(st.integers(1, 40), st.integers(1, 90))
def test_a_sample_is_as_large_as_asked(sample: int, total: int) -> None:
    assert sum(Settings(sample=sample).is_sampled(text, total) for text in range(total)) == min(sample, total)
