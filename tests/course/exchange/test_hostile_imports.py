"""Hostile import files: each is refused with a message, or read, in bounded memory and linear time."""

import io
import os
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from clearhead.course.exchange.draft import Draft, write
from clearhead.course.exchange.limits import Budget, read_member, read_stream, read_text
from clearhead.errors import PackError

CASES = Path(__file__).with_name("hostile_imports.py")
# Name -> words of the refusal; the rest may be read or refused, but in words.
REFUSED = {
    "recursive view.apkg": "notes is a view", "large view.apkg": "notes is a view", "another view.apkg": "x is a view",
    "computed column.apkg": "notes.flds is computed", "stored column.apkg": "notes.flds is computed",
    "virtual table.apkg": "is a virtual table",
    "trigger.apkg": "t is a trigger", "large value.apkg": "too big", "default of a column.apkg": "67,108,864 bytes",
    "not sqlite.apkg": "cannot be read", "bomb.apkg": "67,108,864 bytes", "bomb that lies.apkg": "that can be read",
    "bomb in bzip2.apkg": "than by deflate", "bomb in zstd.apkg": "67,108,864 bytes",
    "window of zstd.apkg": "is damaged", "long template.apkg": "'T' has a template",
    "field many times.apkg": "note 1: its cards come to", "many templates.apkg": "more than 100 templates",
    "deep json.apkg": "not as Anki writes it",
    "long number in json.apkg": "not as Anki writes it", "list for object.apkg": "not as Anki writes it",
    "text for numbers.apkg": "not as Anki writes it",
    "large.txt": "16,777,216 bytes", "column.txt": "column.txt:1:", "entities.xml": "declares a document type",
    "deep.xml": "100 deep", "wide.xml": "500,000 elements", "arrays.toml": "arrays.toml:1: lists and tables",
    "tables.toml": "tables.toml:1: lists and tables", "dotted.toml": "dotted.toml:1: a key",
    "number.toml": "number.toml:1: a number",
}  # fmt: skip
LONG = {"gaps.apkg": "its cards come to"}

CALLS = 50  # of functions, for each byte of a file, or of those that a small one unpacks to
UNPACKED = {".gift": 30_000}


def imported(*which: str) -> list[list[str]]:
    pytest.importorskip("zstandard", reason="zstandard, which a case is packed with, is not installed")
    run = subprocess.run([sys.executable, CASES, *which], capture_output=True, text=True, check=False)
    lines = [line.split("\t") for line in run.stdout.splitlines()]
    assert run.returncode == 0, f"ended at the case after {lines[-1:]}: {run.stderr[-500:]}"
    return lines


@pytest.fixture(scope="module")
def lines() -> list[list[str]]:
    return imported()


@pytest.fixture(scope="module")
def outcomes(lines: list[list[str]]) -> dict[str, str]:
    return outcome_of(lines)


def outcome_of(lines: list[list[str]]) -> dict[str, str]:
    return {name: said for name, _calls, _size, said in lines}


def check_bounds(lines: list[list[str]]) -> None:
    assert len(lines) > 75
    assert [line for line in lines if not line[3].startswith(("imported", "refused"))] == []
    assert [name for name, calls, size, _said in lines if int(calls) > CALLS * max(int(size), unpacked(name))] == []


def unpacked(name: str) -> int:
    return UNPACKED.get(Path(name).suffix, 100_000)


def check_refusals(outcomes: dict[str, str], expected: dict[str, str]) -> None:
    wrong = {
        name: outcomes.get(name)
        for name, words in expected.items()
        if not outcomes.get(name, "").startswith("refused") or words not in outcomes[name]
    }
    assert wrong == {}


@pytest.mark.slow
def test_none_raises_or_takes_too_much(lines: list[list[str]]) -> None:
    check_bounds(lines)


@pytest.mark.slow
def test_what_must_be_refused_is(outcomes: dict[str, str]) -> None:
    check_refusals(outcomes, REFUSED)


@pytest.mark.stress
def test_all_of_them_at_full_length() -> None:
    lines = imported("all")
    check_bounds(lines)
    check_refusals(outcome_of(lines), REFUSED | LONG)


@pytest.mark.slow
def test_three_thousand_notes_of_one_title(outcomes: dict[str, str]) -> None:
    assert outcomes["one title.txt"] == "imported: 3000"


def test_a_name_is_looked_up_once_a_draft(tmp_path: Path) -> None:
    """Counted: a search from 2 on for each draft would look n²/2 times."""

    class Counting(set[str]):
        looks = 0

        def __contains__(self, name: object) -> bool:
            Counting.looks += 1
            return super().__contains__(name)

    from clearhead.course.exchange import draft

    taken, last = Counting(), {}
    for _ in range(500):
        taken.add(draft._slug("The same title", taken, last))
    assert len(taken) == 500
    assert Counting.looks <= 1000


@pytest.mark.parametrize("what", ["link to a folder", "link to nothing", "file"])
def test_drafts_that_lead_elsewhere(tmp_path: Path, what: str) -> None:
    pack, outside = tmp_path / "pack", tmp_path / "outside"
    pack.mkdir()
    outside.mkdir()
    if what == "file":
        (pack / "drafts").write_text("")
    else:
        (pack / "drafts").symlink_to(outside if what == "link to a folder" else tmp_path / "absent")
    with pytest.raises(PackError, match="drafts: is a symbolic link"):
        write([Draft("a", "b", "c")], pack, "topic")
    assert list(outside.iterdir()) == []


def test_no_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "drafts").mkdir()
    target = tmp_path / "target"
    (tmp_path / "drafts" / "a.md").symlink_to(target)
    assert [place.name for place in write([Draft("a", "b", "c")], tmp_path, "topic")] == ["a-2.md"]
    assert not target.exists()


def test_a_budget_names_the_place() -> None:
    spend = Budget(10).at("deck.apkg, note 3")
    spend(10)
    with pytest.raises(PackError, match=r"^deck.apkg, note 3: "):
        spend(1)


class Endless:
    """A stream that never ends, as a bomb whose header lies is; it counts what is read."""

    taken = 0

    def read(self, size: int = -1) -> bytes:
        self.taken += size
        assert 0 < size <= 2**20, "a piece at a time"
        assert self.taken <= 5 * 2**20, "read on beyond the bound"
        return bytes(size)


def test_a_stream_is_read_up_to_its_bound() -> None:
    assert read_stream(Endless(), 3 * 2**20) is None
    assert read_stream(io.BytesIO(bytes(2**20 + 3)), 2**20 + 3) == bytes(2**20 + 3)
    assert read_stream(io.BytesIO(bytes(2**20 + 3)), 2**20 + 2) is None


def test_a_text_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    place = tmp_path / "deck.txt"
    place.touch()
    os.truncate(place, 1 << 40)  # a hole, which takes no room on the disk
    tracemalloc.start()
    try:
        with pytest.raises(PackError, match="is more than 16,777,216 bytes"):
            read_text(place)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_is_read_up_to_its_bound(tmp_path: Path, method: int) -> None:
    place = tmp_path / "deck.apkg"
    with zipfile.ZipFile(place, "w", method) as package:
        package.writestr("a", bytes(3000))
    assert read_member(place, ("b", "a"), 3000) == ("a", bytes(3000))
    assert read_member(place, ("b", "a"), 2999) == ("a", None)
