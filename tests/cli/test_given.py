"""What `see` and `compare` take for a text and for a file, and in which encoding."""

import pytest
from typer.testing import CliRunner

from clearhead import cli
from clearhead.cli import given as given_input
from clearhead.errors import ModelError


def clearhead(*arguments):
    return CliRunner().invoke(cli.app, list(arguments))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_file_with_a_byte_order_mark_is_read_without_it(tmp_path, encoding):
    place = tmp_path / "text.txt"
    place.write_bytes("Größe 注意".encode(encoding))
    assert given_input.read_text(None, place) == "Größe 注意"


def test_a_file_in_another_encoding_is_named_with_its_line(tmp_path):
    place = tmp_path / "text.txt"
    place.write_bytes("one\r\nGröße".encode("cp1252"))
    with pytest.raises(ModelError, match=r"text.txt, line 2, is not UTF-8 text .*'Größe'.*Save it as UTF-8"):
        given_input.read_text(None, place)


@pytest.mark.parametrize("text", ["./no-such-file", "~/notes", "../a/b", "/etc/none", "notes.txt", "a/b.MD", "C:/a"])
def test_a_path_that_names_no_file_is_refused(text):
    for arguments in (["see", text], ["compare", "-", "-", text], ["see", text, "--sound", "a.wav"]):
        result = clearhead(*arguments)
        assert result.exit_code == 2
        assert f"{text} looks like the path of a file, and there is no such file" in result.stderr
        assert "give --file FILE" in result.stderr
    result = clearhead("see", "a cat", "--target", text)
    assert result.exit_code == 2
    assert f"{text} looks like the path of a file, and there is no such file. Check the path" in result.stderr
    assert '--target "$(cat FILE)"' in result.stderr


@pytest.mark.parametrize("text", ["and/or", "yes/no?", "/", "...", "e.g.", "3/4", "node.js", "</s>", "see notes.txt"])
def test_a_word_with_a_slash_or_a_dot_is_a_text(text):
    assert given_input.read_words(text, None) == text
    assert given_input.read_given("a cat", None, target=text).target == text


def test_the_path_of_a_file_is_a_text_with_a_notice(tmp_path, capsys):
    place = tmp_path / "notes.txt"
    place.write_text("words")
    assert given_input.read_words(str(place), None) == str(place)
    assert capsys.readouterr().err.endswith(f"To read the file of that name, give --file {place}\n")


def test_a_pack_after_studio_is_told_how_it_is_given(tmp_path):
    (tmp_path / "pack.toml").write_text("")
    result = clearhead("studio", str(tmp_path))
    assert result.exit_code == 2
    assert f"a pack is given with --pack: clearhead studio --pack {tmp_path}" in result.stderr.replace("\n", " ")
    assert "No such command" in clearhead("studio", str(tmp_path / "nosuch")).stderr
