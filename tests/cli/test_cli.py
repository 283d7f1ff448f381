"""The door: help, messages in place of tracebacks, exit codes."""

import io
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from clearhead import cli
from clearhead.capture import demo_folder
from clearhead.errors import ModelError


def clearhead(*arguments, given=""):
    return CliRunner().invoke(cli.app, list(arguments), input=given)


def test_help_names_every_command_without_loading_torch():
    code = "import sys; from clearhead import cli\ntry: cli.app(['--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert all(name in done.stdout for name in ("see", "doctor"))


@pytest.mark.parametrize("command", ["see", "compare", "doctor"])
def test_every_command_has_help(command):
    result = clearhead(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.output


def test_version():
    assert clearhead("--version").output.startswith("clearhead ")


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (["see", "   "], "", "the text is empty"),
        (["see", "-"], " \n", "standard input is empty"),
        (["see", "a", "--file", "b"], "", "Give one of them"),
        (["see", "--file", "no-such-file.txt"], "", "no-such-file.txt cannot be read"),
    ],
)
def test_bad_input_is_answered_with_a_message(arguments, given, said):
    result = clearhead(*arguments, given=given)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_a_file_that_is_not_text(tmp_path):
    place = tmp_path / "picture.bin"
    place.write_bytes(b"\xff\xfe\x00\x81")
    result = clearhead("see", "--file", str(place))
    assert result.exit_code == 2
    assert "UTF-8" in result.stderr


def test_ctrl_c_stops_quietly(monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "read_text", pressed)
    result = clearhead("see", "text")
    assert (result.exit_code, result.stderr) == (130, "stopped\n")


def test_a_bug_is_not_hidden(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "read_text", broken)
    assert isinstance(clearhead("see", "text").exception, ZeroDivisionError)


def test_an_error_raised_on_purpose_is_a_message(monkeypatch):
    def refused(*_):
        raise ModelError("it is not there. Give another.")

    monkeypatch.setattr(cli, "read_text", refused)
    assert clearhead("see", "text").stderr == "clearhead: it is not there. Give another.\n"


def test_the_text_may_come_from_a_file_or_a_pipe(tmp_path, monkeypatch):
    place = tmp_path / "text.txt"
    place.write_text("héllo \n", encoding="utf-8")
    assert cli.read_text(None, place) == "héllo"

    class Piped:
        buffer = io.BytesIO("wörld".encode())

        def isatty(self):
            return False

    monkeypatch.setattr(sys, "stdin", Piped())
    assert cli.read_text("-", None) == "wörld"


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(cli.OptionError, match="cannot be written"):
        cli.write(tmp_path / "missing" / "a.html", "text")


def has_demo():
    try:
        demo_folder()
    except ModelError:
        return False
    return True


@pytest.mark.skipif(not has_demo(), reason="the demo model is not installed (make setup installs it)")
def test_the_real_model_from_the_command_line(tmp_path):
    text = "The animal didn't cross the street because it was too tired"
    page, figure = tmp_path / "a.html", tmp_path / "a.svg"
    result = clearhead("see", text, "--layer", "5", "--head", "11", "--html", str(page), "--png", str(figure), "--json")
    assert result.exit_code == 0, result.output
    (head,) = json.loads(result.stdout)["heads"]
    strongest = head["links"][10][0]  # of the token "it"
    assert strongest[0] == 2
    assert strongest[1] == pytest.approx(0.6466, abs=1e-3)
    assert sum(head["weights"][10]) == pytest.approx(1, abs=1e-4)
    assert page.stat().st_size < 1_000_000
    assert "animal" in figure.read_text(encoding="utf-8")
    assert f"wrote {page}" in result.stderr

    shown = clearhead("see", text).stdout
    assert "Strongest links between two words" in shown
    assert "head" in clearhead("see", text, "--scores").stdout
    assert "Rollout of all layers" in clearhead("see", text, "--rollout").stdout
    assert "1.000" in clearhead("compare", "-", "-", text).stdout
    assert "layers 0 to 5" in clearhead("see", text, "--layer", "6").stderr
    assert "at most 512" in clearhead("see", "word " * 600).stderr


def test_the_doctor_says_what_runs_here():
    found = json.loads(clearhead("doctor", "--json").stdout)
    assert found["Kernels"]["reference"]["works"] is True
    assert found["This machine"]["cpu"]["found"]
    assert set(found) == {"This machine", "Packages", "Kernels", "Lens", "Studio"}
    assert "Kernels" in clearhead("doctor").stdout
