"""Files of other programs in the encodings that those programs write."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from clearhead import cli, course
from clearhead.course.exchange.drafts import read
from clearhead.course.pack.scaffold import new_pack
from clearhead.errors import OptionError, PackError

WORDS = "Größe “α” 注意 🙂"
FILES = {
    "a.gift": "{0} {{=ja {0} ~nein}}\n",
    "a.txt": "{0}\tja\n",
    "a.tsv": "{0}\tja\n",
    "a.csv": "{0},ja\n",
    "a.toml": "[[questions]]\ntype = 'ShortAnswer'\nprompt.prompt = '{0}'\nanswer.answer = 'ja'\n",
    "a.xml": '<?xml version="1.0" encoding="{1}"?>\n<quiz><question type="shortanswer"><questiontext format="html">'
    '<text>{0}</text></questiontext><answer fraction="100"><text>ja</text></answer></question></quiz>\n',
}
ENCODED = [
    ("windows-1252", "Größe “x”"), ("iso-8859-1", "Größe"), ("windows-1251", "Внимание"), ("iso-8859-7", "αβγ"),
    ("shift_jis", "注意"), ("gb18030", "注意 🙂"), ("big5", "注意"), ("euc-kr", "주의"), ("koi8-r", "Внимание"),
]  # fmt: skip


def stem(folder: Path, name: str, data: bytes, encoding: str | None = None) -> str:
    place = folder / name
    place.write_bytes(data)
    (draft,) = read(place, encoding=encoding)
    return draft.stem


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", FILES)
def test_a_unicode_file_needs_no_option(tmp_path: Path, name: str, encoding: str) -> None:
    text = FILES[name].format(WORDS, encoding.removesuffix("-sig").removesuffix("-le").removesuffix("-be"))
    assert stem(tmp_path, name, text.encode(encoding)) == WORDS


@pytest.mark.parametrize(("encoding", "words"), ENCODED)
@pytest.mark.parametrize("name", FILES)
def test_another_encoding_is_declared_or_given(tmp_path: Path, name: str, encoding: str, words: str) -> None:
    data = FILES[name].format(words, encoding).encode(encoding)
    assert stem(tmp_path, name, data, encoding) == words
    if name.endswith(".xml"):
        assert stem(tmp_path, name, data) == words
        other = data.replace(f'"{encoding}"'.encode(), b"'utf-8'")
        assert stem(tmp_path, name, other, encoding) == words  # the option overrides what the file says


@pytest.mark.parametrize("declared", ["ISO-8859-1", "latin1", "us-ascii", "an-unknown-one", "punycode"])
def test_declarations_are_read_as_browsers_read_them(tmp_path: Path, declared: str) -> None:
    """Programs on Windows say ISO-8859-1 of Windows-1252, whose quotation marks are control characters in Latin-1."""
    encoding = "windows-1252" if "1" in declared else "utf-8"
    assert stem(tmp_path, "a.xml", FILES["a.xml"].format("“so”", declared).encode(encoding)) == "“so”"


def test_the_error_shows_a_word_of_the_file(tmp_path: Path) -> None:
    words = "One {=a ~b}\n\nZwei Größen {=a ~b}\n".encode("cp1252")
    with pytest.raises(PackError, match=r"a.gift:3: .*0xf6, in windows-1252 'Größen'.*--encoding"):
        stem(tmp_path, "a.gift", words)
    with pytest.raises(PackError, match=r"a.gift:1: is not UTF-8 text \(byte 0x81\)"):  # no letter in Windows-1252
        stem(tmp_path, "a.gift", b"One {=a ~b}\x81")
    with pytest.raises(PackError, match=r"a.gift:2: is not text in shift_jis"):
        stem(tmp_path, "a.gift", b"\n\xff\xff", "shift_jis")


@pytest.mark.parametrize("name", ["nope", "zip", "rot13", "punycode", "unicode_escape", "a\0b"])
def test_what_is_no_encoding_of_text_files_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match="expected a name such as utf-8"):
        stem(tmp_path, "a.txt", b"a\tb\n", name)


def test_a_package_takes_no_encoding(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Leave out --encoding"):
        stem(tmp_path, "a.apkg", b"", "utf-8")


@pytest.mark.parametrize("name", ["a.gift", "a.txt", "a.tsv", "a.csv"])  # TOML and XML refuse control characters
def test_no_control_character_stays_in_a_draft(tmp_path: Path, name: str) -> None:
    assert stem(tmp_path, name, FILES[name].format("a\x1b[31m\x07\x08b\x9b\ufffe").encode()) == "a[31mb"


def test_the_command_takes_an_encoding(tmp_path: Path) -> None:
    pack = new_pack(tmp_path / "mine")
    (tmp_path / "bank.gift").write_bytes("Größe? {=ja ~nein}\n".encode("cp1252"))
    arguments = ["import", str(tmp_path / "bank.gift"), "--into", str(pack)]
    assert CliRunner().invoke(cli.app, arguments).exit_code != 0
    assert CliRunner().invoke(cli.app, [*arguments, "--encoding", "windows-1252"]).exit_code == 0
    (draft,) = (pack / "drafts").glob("*.md")
    assert "Größe?" in draft.read_text(encoding="utf-8")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_an_item_that_notepad_saved_is_loaded(tmp_path: Path, encoding: str) -> None:
    pack = new_pack(tmp_path / "mine")
    before = course.load(pack)
    for file in (pack / "pack.toml", *(pack / "items").glob("*.md")):
        file.write_bytes(file.read_text(encoding="utf-8").replace("\n", "\r\n").encode(encoding))
    assert course.load(pack).hash == before.hash
