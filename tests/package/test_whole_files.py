"""A write that fails leaves what was there before: a full disk, Ctrl-C at any line, a file that may not be written."""

import errno
import io
import os
import resource
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from clearhead import files
from clearhead.capture import Record
from clearhead.cli import output
from clearhead.course import exchange
from clearhead.course.check.packs import write_receipts
from clearhead.course.exchange.draft import Draft
from clearhead.course.exchange.question import Question
from clearhead.course.pack import scaffold
from clearhead.course.pack.loader import load
from clearhead.errors import OptionError
from clearhead.local_models import names
from clearhead.matrix import AttentionMatrix
from clearhead.matrix.store import save
from clearhead.survey.parquet import write_whole
from clearhead.views import plot

MATRIX = AttentionMatrix(torch.randn(1, 2, 5, 3), torch.randn(1, 2, 5, 3))
QUESTION = Question("q", "p", "t", "card", "T", "text", "s" * 5000, "an answer", "a rule", "why", (), 1)


def pack_in(folder: Path) -> Path:
    return folder / "p" if (folder / "p").exists() else scaffold.new_pack(folder / "p")


def draft_of(number: int) -> Draft:
    return Draft(f"d{number}", "s" * (100 if number == 1 else 5000), "b")


def as_form(form: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with files.whole_file(path) as draft:
            exchange.FORMS[form][1]([QUESTION], "A title", draft)

    return write


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: output.write(path, "x" * 5000),
    "page.html": lambda path: Record.of({"a layer": MATRIX}).to_html(path),
    "figure.svg": lambda path: plot.save(Figure(), path),
    "figure.png": lambda path: plot.save(Figure(), path),
    "figure.pdf": lambda path: plot.save(Figure(), path),
    "matrix.safetensors": lambda path: save(MATRIX, path),
    "survey.json": lambda path: write_whole(path, b"x" * 5000),
    **{form: as_form(form) for form in exchange.FORMS},
}


@contextmanager
def full_disk(size: int = 300) -> Iterator[None]:
    """Let no file grow past `size` bytes: the last write of a file is cut, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def content(folder: Path) -> dict[str, bytes | None]:
    """Return every file and folder below this one, with the bytes of the files."""
    here = str(folder).encode()
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes().replace(here, b"")
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("before", [None, b"what was here"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_on_a_full_disk(name: str, before: bytes | None, tmp_path: Path) -> None:
    place = tmp_path / name
    if before is not None:
        place.write_bytes(before)
    whole = content(tmp_path)
    with full_disk(), pytest.raises(OptionError, match=r"cannot be written: .*Make room, or give another path"):
        WRITERS[name](place)
    assert content(tmp_path) == whole
    WRITERS[name](place)
    assert list(tmp_path.iterdir()) == [place]
    assert place.stat().st_size > 300


def test_an_anki_deck_leaves_nothing_in_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    as_form("anki")(tmp_path / "deck.apkg")
    assert list((tmp_path / "scratch").iterdir()) == []


MAKERS: dict[str, Callable[[Path], object]] = {
    "a pack": lambda folder: scaffold.new_pack(folder / "new" / "my-pack"),
    "a pack in an empty folder": lambda folder: scaffold.new_pack(folder / "empty"),
    "an item": lambda folder: scaffold.new_item(pack_in(folder), "an-item", "worked"),
    "drafts": lambda folder: exchange.write([draft_of(1), draft_of(2)], pack_in(folder), "first-topic"),
    "receipts": lambda folder: write_receipts(load(pack_in(folder)), [], folder),
    "a model's name": lambda folder: names.add_model("n" * 64, folder / "model"),
}


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a pack, a model and the user's configuration."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    for name in ("model", "empty", "clearhead"):
        (folder / name).mkdir(mode=0o700, parents=True)
    (folder / "model" / "config.json").write_text("{}")
    (pack_in(folder) / "drafts").mkdir()
    return folder


@pytest.mark.parametrize("what", MAKERS)
def test_what_is_made_on_a_full_disk(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = prepared(tmp_path, monkeypatch)
    before = content(place)
    with full_disk(120), pytest.raises(OptionError, match=r"cannot be written: .*Make room"):
        MAKERS[what](place)
    assert content(place) == before
    MAKERS[what](place)
    assert content(place) != before


@contextmanager
def read_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse every change of a folder as Linux does on a read-only file system: before it looks what is there."""

    def refuse(path: Any, *_rest: Any, **_options: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))

    def opened(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        return refuse(path) if set(mode) & set("wxa+") else file_opened(path, mode, *rest, **options)

    def opened_low(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        return (
            refuse(path)
            if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
            else low_opened(path, flags, *rest, **options)
        )

    file_opened, low_opened = io.open, os.open
    with monkeypatch.context() as patch:
        for name in ("unlink", "mkdir", "rmdir", "rename", "replace"):
            patch.setattr(os, name, refuse)
        patch.setattr(io, "open", opened)
        patch.setattr(os, "open", opened_low)
        yield


REFUSED = r"cannot be written: Read-only file system\. Give a path that you have access to\.$"


@pytest.mark.parametrize("name", WRITERS)
def test_a_new_file_on_a_read_only_file_system(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file that was asked for, not the draft that could not be removed either."""
    with read_only(monkeypatch), pytest.raises(OptionError, match=f"{name} {REFUSED}"):
        WRITERS[name](tmp_path / name)
    assert content(tmp_path) == {}


@pytest.mark.parametrize("what", MAKERS)
def test_what_is_made_on_a_read_only_file_system(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = prepared(tmp_path, monkeypatch)
    before = content(place)
    with read_only(monkeypatch), pytest.raises(OptionError, match="cannot be written: Read-only") as refused:
        MAKERS[what](place)
    assert ".draft" not in str(refused.value)
    assert content(place) == before


@pytest.mark.parametrize("what", ["drafts", "receipts"])
def test_a_folder_for_what_is_made_on_a_read_only_file_system(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = pack_in(tmp_path)
    make = {
        "drafts": lambda: exchange.write([draft_of(1)], pack, "first-topic"),
        "receipts": lambda: write_receipts(load(pack), [], tmp_path / "receipts"),
    }
    with read_only(monkeypatch), pytest.raises(OptionError, match=f"{what} {REFUSED}"):
        make[what]()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("what", MAKERS)
def test_ctrl_c_before_any_line(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = prepared(tmp_path / "whole", monkeypatch)
    MAKERS[what](place)
    whole = content(place)
    place = prepared(tmp_path / "interrupted", monkeypatch)
    before = content(place)
    line = 0
    while content(place) == before and interrupted(lambda: MAKERS[what](place), line):
        line += 1
    assert line > 5
    assert content(place) == whole


def interrupted(make: Callable[[], object], line: int) -> bool:
    """Raise KeyboardInterrupt before the given line of our own code that writes; return whether there was such a line."""
    ours = {files.__file__, scaffold.__file__, exchange.write.__code__.co_filename, names.__file__}
    left = line

    def each(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in ours:
            return None
        if event == "line":
            left -= 1
            if left == -1:
                raise KeyboardInterrupt
        return each

    tracer = sys.gettrace()
    sys.settrace(each)
    try:
        make()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(tracer)
    return False


def test_a_file_keeps_its_permissions_and_one_that_is_protected_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "notes"
    place.write_text("before")
    place.chmod(0o640)
    output.write(place, "after")
    assert (place.read_text(), stat.S_IMODE(place.stat().st_mode)) == ("after", 0o640)
    monkeypatch.setattr(os, "access", lambda _path, _how: False)  # as for a file of mode 0400, which root may write to
    with pytest.raises(OptionError, match="Give a path that you have access to"):
        output.write(place, "again")
    assert place.read_text() == "after"
