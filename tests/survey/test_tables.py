"""Parquet, Arrow and datasets on disk: every text is read, whichever part, row group or file it is in."""

import json
from pathlib import Path

import pytest

from clearhead.errors import ModelError, OptionError
from clearhead.survey import open_corpus
from survey.test_text_files import everything

pyarrow = pytest.importorskip("pyarrow", reason="tables are read by pyarrow: pip install 'clearhead[survey]'")
parquet = pytest.importorskip("pyarrow.parquet", reason="tables are read by pyarrow: pip install 'clearhead[survey]'")

TEXTS = [f"text {number}" if number % 5 else None for number in range(1, 30)]


def table(texts=TEXTS, kind=None):
    return pyarrow.table({"id": list(range(len(texts))), "text": pyarrow.array(texts, kind or pyarrow.string())})


def write_arrow(path: Path, content, *, stream: bool) -> None:
    opened = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with opened(str(path), content.schema) as sink:
        sink.write_table(content, max_chunksize=4)


@pytest.mark.parametrize("form", ["parquet", "stream", "file"])
@pytest.mark.parametrize("kind", ["string", "large", "dictionary"])
def test_a_column_of_text(form: str, kind: str, tmp_path: Path) -> None:
    kinds = {
        "string": pyarrow.string(), "large": pyarrow.large_string(),
        "dictionary": pyarrow.dictionary(pyarrow.int8(), pyarrow.string()),
    }  # fmt: skip
    path = tmp_path / ("t.parquet" if form == "parquet" else "t.arrow")
    if form == "parquet":
        parquet.write_table(table(kind=kinds[kind]), path, row_group_size=4)
    else:
        write_arrow(path, table(kind=kinds[kind]), stream=form == "stream")
    corpus = open_corpus(path)
    assert corpus.texts == len(TEXTS)
    for size in (1, 3, 7, 100):
        assert everything(corpus, size) == TEXTS


def dataset(folder: Path, texts, **state) -> None:
    """A dataset as `save_to_disk` of datasets 4 writes it, in two files."""
    folder.mkdir(parents=True)
    names = [f"data-0000{number}-of-00002.arrow" for number in range(2)]
    write_arrow(folder / names[0], table(texts[:9]), stream=True)
    write_arrow(folder / names[1], table(texts[9:]), stream=True)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names], **state}))
    (folder / "dataset_info.json").write_text("{}")


def test_a_dataset_on_disk(tmp_path: Path) -> None:
    dataset(tmp_path / "d", TEXTS)
    assert everything(open_corpus(tmp_path / "d"), 5) == TEXTS


def test_splits_are_named(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for split, texts in (("train", TEXTS), ("test", TEXTS[::-1])):
        dataset(tmp_path / "d" / split, texts)
    assert everything(open_corpus(tmp_path / "d", split="test")) == TEXTS[::-1]
    with pytest.raises(OptionError, match=r"--split names none, .* has the splits train, test"):
        open_corpus(tmp_path / "d")
    with pytest.raises(OptionError, match=r"--split is 'dev', .* has the splits train, test"):
        open_corpus(tmp_path / "d", split="dev")
    with pytest.raises(OptionError, match="has no splits, so it takes no --split"):
        open_corpus(tmp_path / "d" / "train", split="train")
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert everything(open_corpus(tmp_path / "d")) == TEXTS  # the only one needs no name


def test_datasets_that_are_damaged_or_a_selection_are_refused(tmp_path: Path) -> None:
    dataset(tmp_path / "d", TEXTS, _indices_data_files=[{"filename": "indices.arrow"}])
    with pytest.raises(ModelError, match="is a selection of a dataset"):
        open_corpus(tmp_path / "d")
    dataset(tmp_path / "e", TEXTS)
    (tmp_path / "e" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(ModelError, match=r"00001-of-00002.arrow does not exist, but .* lists it"):
        open_corpus(tmp_path / "e")
    for content, words in (("[]", "holds no object"), ("{}", "lists no files"), ("{", "cannot be read")):
        (tmp_path / "e" / "state.json").write_text(content)
        with pytest.raises(ModelError, match=words):
            open_corpus(tmp_path / "e")


def test_tables_without_such_a_column_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(table(), path)
    with pytest.raises(ModelError, match=r"has no column 'body'; its columns are 'id', 'text'. Name .*--column"):
        open_corpus(path, column="body")
    with pytest.raises(ModelError, match="column 'id' holds int64, not text"):
        open_corpus(path, column="id")
    parquet.write_table(table([]), path)
    with pytest.raises(ModelError, match="holds no text"):
        open_corpus(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"words\n" * 50, b"ARROW1\0\0" + b"\xff" * 90], ids=range(4))
@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_a_damaged_table_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=r"t\.\w+ cannot be read: .* Give the path of a whole \w+ file"):
        open_corpus(tmp_path / name)
