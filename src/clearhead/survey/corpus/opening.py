"""open_corpus(): open the texts of a file or a folder; its name and content decide the format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from clearhead.errors import ModelError, OptionError
from clearhead.files import expanded
from clearhead.survey.corpus.datasets import arrow_files, is_dataset
from clearhead.survey.corpus.parts import Corpus, TextFile
from clearhead.survey.corpus.tables import TableFile
from clearhead.survey.corpus.text_files import LineFile

FORMS = {
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".feather"),
    "json": (".jsonl", ".ndjson", ".json"),
    "text": (".txt", ".text", ".md", ".rst"),
}
NAMES = {"parquet": "Parquet", "arrow": "Arrow", "json": "JSON lines", "text": "plain text"}
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".7z")
TABLES = (".csv", ".tsv")
COLUMN = "text"

Texts = Literal["line", "paragraph"]
Tell = Callable[[int, int], None]


def open_corpus(
    path: str | Path,
    *,
    column: str = COLUMN,
    texts: Texts = "line",
    split: str | None = None,
    progress: Tell = lambda _done, _total: None,
) -> Corpus:
    """Return the texts of a file, of all files of one kind in a folder, or of a Hugging Face dataset on disk.

    Each file is read once in full, to count its texts and compute a digest of its content.

    Args:
        path: Parquet (.parquet), Arrow (.arrow), JSON lines (.jsonl), or any other file, which is plain text; a folder
            of such files, taken in the order of their names; or a folder that `Dataset.save_to_disk` wrote.
        column: the column of a table, or the key of JSON lines, that holds the text.
        texts: for plain text, whether a text is a line or a paragraph, which ends at a blank line.
        split: which split of a dataset that has several.
        progress: called with (bytes read, bytes in all).

    Raises:
        ModelError: the path does not exist, cannot be read as texts, or holds none; the message says what was expected.
        OptionError: `column`, `texts` or `split` is not as above.
    """
    place = expanded(Path(path))
    if texts not in ("line", "paragraph"):
        raise OptionError(f"--texts is {texts!r}, expected line or paragraph.")
    form, paths = _files(place, split)
    if form != "text" and texts != "line":
        raise OptionError(f"{place} is {NAMES[form]}, where each row is a text, so it takes no --texts. Leave it out.")
    if form == "text" and column != COLUMN:
        raise OptionError(
            f"{place} is read as plain text, which has no column {column!r}. Give Parquet or JSON lines, or leave "
            "--column out."
        )
    total = sum(file.stat().st_size for file in paths)
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        progress(done, total)

    files = tuple(_opened(file, form, column, texts, tell) for file in paths)
    if not sum(file.texts for file in files):
        raise ModelError(f"{place} holds no text. Give a file with at least one.")
    return Corpus(str(path), NAMES[form], files)


def _opened(path: Path, form: str, column: str, texts: Texts, tell: Callable[[int], None]) -> TextFile:
    if form in ("parquet", "arrow"):
        kind: Any = form
        return TableFile.opened(path, kind, column, tell)
    return LineFile.opened(path, "json" if form == "json" else texts, column, tell)


def _files(place: Path, split: str | None) -> tuple[str, list[Path]]:
    """Return the format of the files that a path names, and the files."""
    if place.is_dir() and is_dataset(place):
        files = arrow_files(place, split)
        if lost := [file for file in files if not file.is_file()]:
            raise ModelError(f"{lost[0]} does not exist, but {place} lists it. Save the dataset again.")
        return "arrow", files
    if split is not None:
        raise OptionError(f"{place} is not a dataset of Hugging Face's, so it takes no --split. Leave it out.")
    if place.is_dir():
        return _in_folder(place)
    if not place.is_file():
        raise ModelError(f"{place} does not exist. Give a file of texts, or a folder of such files.")
    if place.suffix.lower() in TABLES:
        raise ModelError(
            f"{place} is a table, whose lines are not texts. Save it as Parquet or JSON lines, for example by "
            f'pandas.read_csv("{place.name}").to_parquet("{place.stem}.parquet").'
        )
    return _form(place) or "text", [place]


def _in_folder(folder: Path) -> tuple[str, list[Path]]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    by_form: dict[str, list[Path]] = {}
    for file in files:
        if (form := _form(file)) is not None:
            by_form.setdefault(form, []).append(file)
    if not by_form:
        endings = ", ".join(ending for known in FORMS.values() for ending in known)
        raise ModelError(f"{folder} has no file of texts in it; their names end in {endings}. Give another folder.")
    if len(by_form) > 1:
        kinds = " and ".join(f"{NAMES[form]} ({paths[0].name})" for form, paths in by_form.items())
        raise ModelError(f"{folder} has files of several kinds in it: {kinds}. Give a folder with one kind.")
    return next(iter(by_form.items()))


def _form(path: Path) -> str | None:
    ending = path.suffix.lower()
    if ending in PACKED:
        raise ModelError(f"{path} is compressed. Unpack it, and give the file inside.")
    return next((form for form, endings in FORMS.items() if ending in endings), None)
