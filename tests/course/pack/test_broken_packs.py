"""Every pack of tests/packs/broken is refused, at the line and with the words that its first line says."""

import re
from pathlib import Path

import pytest

from clearhead import course, sandbox
from clearhead.errors import PackError

BROKEN = Path(__file__).parents[2] / "packs" / "broken"
GOOD = BROKEN.parent / "good"
pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"no confinement here: {sandbox.explain()}")


def refusal(folder: Path) -> tuple[str, int | None, str]:
    """(file, line, message) of the first thing `check` refuses."""
    try:
        pack = course.load(folder)
    except PackError as error:
        return error.file or "", error.line, str(error)
    outcome = next(one for one in course.prove_pack(pack) if not one.ok)
    return outcome.file, outcome.line, outcome.error


def test_there_are_enough() -> None:
    assert len(list(BROKEN.iterdir())) >= 50


@pytest.mark.parametrize("name", sorted(path.name for path in BROKEN.iterdir()))
def test_refused_at_its_line(name: str) -> None:
    head = (BROKEN / name / "pack.toml").read_text().splitlines()[0]
    expected = re.fullmatch(r"# refused at (\S+):(\d+): (.+)", head)
    assert expected, f"{name}/pack.toml does not say what is expected: {head}"
    file, line, message = refusal(BROKEN / name)
    assert (file, line) == (expected[1], int(expected[2])), message
    assert expected[3] in message


def test_the_good_pack_holds_one_item_of_every_kind() -> None:
    pack = course.load(GOOD)
    assert {item.kind for item in pack.items.values()} == set(course.KINDS)
    assert [(one.item_id, one.error) for one in course.prove_pack(pack) if not one.ok] == []


WORD = (GOOD / "items" / "card-word.md").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "items").mkdir()
    (tmp_path / "pack.toml").write_text((GOOD / "pack.toml").read_text())
    (tmp_path / "items" / "card-word.md").write_text(WORD)
    return tmp_path


def refused(folder: Path, file: str, line: int | None, words: str) -> None:
    with pytest.raises(PackError) as caught:
        course.load(folder)
    assert (caught.value.file, caught.value.line) == (file, line)
    assert words in str(caught.value)


def test_a_link_out_of_the_pack(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("outside") / "card-link.md"
    secret.write_text(WORD.replace("card-word", "card-link"))
    (folder / "items" / "card-link.md").symlink_to(secret)
    refused(folder, "items/card-link.md", None, "symbolic link")


def test_a_linked_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "read.md").write_text("secret")
    (folder / "topics").mkdir()
    (folder / "topics" / "basics").symlink_to(outside)
    refused(folder, "topics/basics/read.md", None, "symbolic link")


def test_a_path_in_an_id(folder: Path) -> None:
    (folder / "items" / "card-word.md").write_text(WORD.replace('"card-word"', '"../card-word"'))
    refused(folder, "items/card-word.md", 2, "`id`")


def test_not_utf8(folder: Path) -> None:
    (folder / "items" / "card-word.md").write_bytes(WORD.encode().replace(b"iterable?", b"\xff\xfe"))
    refused(folder, "items/card-word.md", 12, "UTF-8")


def test_a_huge_file(folder: Path) -> None:
    (folder / "items" / "card-word.md").write_text(WORD + "x" * 1_000_001)
    refused(folder, "items/card-word.md", None, "bytes")


def test_pack_toml(folder: Path) -> None:
    place = folder / "pack.toml"
    text = place.read_text()
    place.write_text(text.replace('version = "0.1.0"', "version = 1"))
    refused(folder, "pack.toml", 4, "`version`")
    place.write_text(text.replace('title = "Basics"', ""))
    refused(folder, "pack.toml", 6, "`topics.0.title` is missing")
    place.write_text(text + '\n[[topics]]\nid = "basics"\ntitle = "Again"\nsummary = "Again."\n')
    refused(folder, "pack.toml", text.count("\n") + 3, "appears twice")
    place.write_text(text.replace("[[topics]]", "[[topics]"))
    refused(folder, "pack.toml", 6, "not valid TOML")
    place.unlink()
    refused(folder, "pack.toml", None, "is missing")


def test_an_error_in_front_matter_names_the_line_of_the_file_alone(folder: Path) -> None:
    item = folder / "items" / "card-word.md"
    item.write_text(item.read_text().replace("+++\n", "+++\nid: [\n", 1))  # the second line, the first of the TOML
    refused(folder, "items/card-word.md", 2, "after a key in a key/value pair (column 3)")


def test_no_items_and_no_folder(folder: Path) -> None:
    (folder / "items" / "card-word.md").unlink()
    refused(folder, "items", None, "no items")
    with pytest.raises(PackError, match="not a folder"):
        course.load(folder / "nowhere")


def test_a_page_of_no_mode(folder: Path) -> None:
    (folder / "topics" / "basics").mkdir(parents=True)
    (folder / "topics" / "basics" / "reed.md").write_text("text")
    refused(folder, "topics/basics/reed.md", None, "not a mode")
