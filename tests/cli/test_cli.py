"""The commands: help, messages instead of tracebacks, exit statuses."""

import inspect
import io
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
import transformers as hf
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from typer.testing import CliRunner

import fresh
from clearhead import cli
from clearhead.capture.models.folders import has_demo_model
from clearhead.cli import check, output
from clearhead.cli import given as given_input
from clearhead.errors import ModelError, OptionError
from cli.every_command import ALL


def clearhead(*arguments, given=""):
    return CliRunner().invoke(cli.app, list(arguments), input=given)


# What Typer and Rich bring. `--help` took 0.18 s of processor time with these, on a Xeon of 2 GHz; torch alone takes 1.6 s.
LIGHT = {
    "annotated_doc",
    "attr",  # by Rich where attrs is installed, as it is beside Ray
    "markdown_it",
    "mdurl",
    "pygments",
    "rich",
    "shellingham",
    "typer",
    "click",
    "typing_extensions",
}
FOR_ONE = LIGHT | {
    "annotated_types",
    "pydantic",
    "pydantic_core",
    "typing_inspection",
}  # Typer's, for one command's page
ROOMLESS = {
    "cli",
    "errors",
    "extras",
    "files",
    "hooks",
    "messages",
    "printing",
    "registration",
    "scratch",
    "text_encoding",
    "sizes",
}
ASK = """
import contextlib, io, json, sys
from clearhead import cli
def loaded():
    tops = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
    return sorted(top for top in tops if top[0] != "_"), sorted({n.split(".")[1] for n in sys.modules if n[:10] == "clearhead."})
seen = []
for words in json.loads(sys.argv[1]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.app([*words, "--help"])
    seen.append((out.getvalue(), loaded()))
print(json.dumps(seen))
"""


@pytest.mark.slow
def test_help_imports_no_room_and_nothing_heavy():
    pages = [[], *map(list, ALL)]
    done = subprocess.run([sys.executable, "-c", ASK, json.dumps(pages)], capture_output=True, text=True, check=True)
    (first, (packages, rooms)), *others = json.loads(done.stdout)
    assert set(packages) - {"clearhead"} <= LIGHT
    assert set(rooms) <= ROOMLESS
    assert all(name[0] in first for name in ALL)
    for words, (shown, (packages, rooms)) in zip(ALL, others, strict=True):
        assert "Usage: " in shown, words
        assert set(packages) - {"clearhead"} <= FOR_ONE, words
        assert set(rooms) <= ROOMLESS, words


def test_a_line_of_help_ends_where_a_sentence_does():
    """Typer joins the lines of the first paragraph, and keeps those of the others."""
    for words, command in ALL.items():
        for paragraph in inspect.cleandoc(command.help or "").split("\n\n")[1:]:
            assert all(line.endswith(".") for line in paragraph.splitlines()), words


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
    place.write_bytes(b"\xff\xd8\x00\x81")
    result = clearhead("see", "--file", str(place))
    assert result.exit_code == 2
    assert "UTF-8" in result.stderr


def test_a_text_without_end_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(given_input, "LARGEST_TEXT", 1031)
    place = tmp_path / "long.txt"
    place.write_text("a " * 516)
    for arguments, given in ((["--file", str(place)], ""), (["--file", "/dev/zero"], ""), (["-"], "a " * 516)):
        result = clearhead("see", *arguments, given=given)
        assert (result.exit_code, "is more than 1,031 bytes" in result.stderr) == (2, True)


def test_ctrl_c_stops_quietly(monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(given_input, "read_text", pressed)
    result = clearhead("see", "text")
    assert (result.exit_code, result.stderr) == (130, "stopped\n")


def test_a_bug_is_not_hidden(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(given_input, "read_text", broken)
    assert isinstance(clearhead("see", "text").exception, ZeroDivisionError)


def test_an_error_raised_on_purpose_is_a_message(monkeypatch):
    def refused(*_):
        raise ModelError("it is not there. Give another.")

    monkeypatch.setattr(given_input, "read_text", refused)
    assert clearhead("see", "text").stderr == "clearhead: it is not there. Give another.\n"


def test_the_text_may_come_from_a_file_or_a_pipe(tmp_path, monkeypatch):
    place = tmp_path / "text.txt"
    place.write_text("héllo \n", encoding="utf-8")
    assert given_input.read_text(None, place) == "héllo"

    class Piped:
        buffer = io.BytesIO("wörld".encode())

        def isatty(self):
            return False

    monkeypatch.setattr(sys, "stdin", Piped())
    assert given_input.read_text("-", None) == "wörld"


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(OptionError, match="cannot be written"):
        output.write(tmp_path / "missing" / "a.html", "text")


@pytest.mark.slow
@pytest.mark.skipif(not has_demo_model(), reason="the demo model is not installed (make setup installs it)")
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
    named = clearhead("see", text, "--layer", "encoder.layer.5.attention.self", "--head", "11").stdout
    assert "Layer 5, head 11" in named
    unknown = clearhead("see", text, "--layer", "encoder.layer.9")
    assert (unknown.exit_code, unknown.stdout) == (2, "")
    assert "no layer 'encoder.layer.9'. Give a number from 0 to 5, or one of: encoder.layer.0." in unknown.stderr
    assert "at most 512" in clearhead("see", "word " * 600).stderr


def test_refusals_of_models_say_what_to_do(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "odd", "auto_map": {"AutoConfig": "odd.OddConfig"}})
    )
    (tmp_path / "odd.py").write_text("raise SystemExit('it ran')")
    refused = clearhead("see", "a word", "--model", str(tmp_path))
    assert refused.exit_code == 2
    assert "--trust-remote-code" in refused.stderr
    assert "does not exist" in clearhead("see", "a word", "--model", "/no/such/model").stderr


def test_layers_past_the_memory_given_are_named():
    with pytest.warns(RuntimeWarning, match="max_bytes"):
        shown = clearhead("see", "the lighthouse", "--model", "induction", "--max-memory", "15KB").stdout
    assert "Not captured" in shown
    assert "max_bytes was reached" in shown
    with pytest.warns(RuntimeWarning, match="max_bytes"):
        nothing = clearhead("see", "the lighthouse", "--model", "induction", "--max-memory", "1KB")
    assert nothing.exit_code == 2
    assert "max_bytes was reached" in nothing.stderr
    assert "as in 500MB" in clearhead("see", "a word", "--max-memory", "much").stderr


@pytest.mark.slow
def test_two_models_are_compared_on_one_page(tmp_path):
    page, figure = tmp_path / "a.html", tmp_path / "a.svg"
    result = clearhead("compare", "induction", "induction", "a sea, a sea", "--html", str(page), "--png", str(figure))
    assert result.exit_code == 0, result.output
    assert '"other":{"model":"induction"' in page.read_text(encoding="utf-8")
    assert "KL divergence, nats per query" in figure.read_text(encoding="utf-8")
    overview = clearhead("compare", "induction", "induction", "a sea, a sea").stdout
    assert "KL 0.000" in overview


def test_a_picture_is_seen_through_a_model_of_pictures(tmp_path):
    Image.new("RGB", (8, 8), "teal").save(tmp_path / "sea.png")
    refused = clearhead("see", str(tmp_path / "sea.png"), "--model", "induction")
    assert refused.exit_code == 2
    assert "is a picture. Give --model a model that reads pictures" in refused.stderr
    model = tmp_path / "vit"
    torch.manual_seed(0)
    config = hf.ViTConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=8, image_size=8, patch_size=4
    )
    hf.ViTModel(config).save_pretrained(model)
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(model)
    page = tmp_path / "sea.html"
    seen = clearhead("see", str(tmp_path / "sea.png"), "--model", str(model), "--html", str(page), "--json")
    assert seen.exit_code == 0, seen.output
    assert json.loads(seen.stdout)["tokens"] == ["[CLS]", "0,0", "0,1", "1,0", "1,1"]
    assert "data:image/jpeg;base64," in page.read_text(encoding="utf-8")


def interrupted(preparation: str):
    """Run `clearhead see` in a process of its own, after a preparation in which `pressed()` is Ctrl-C."""
    return fresh.run(
        "import signal, sys\n"
        "from clearhead import capture, cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it\n"
        "pressed = lambda *_, **__: signal.raise_signal(signal.SIGINT)\n"
        f"{preparation}\n"
        "sys.argv = ['clearhead', 'see', 'a word']\n"
        "cli.main()\n"
    )


@pytest.mark.slow
def test_ctrl_c_while_a_model_reads_leaves_no_traceback():
    done = interrupted("capture.load = pressed")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_in_a_finaliser_stops_the_command_too():
    done = interrupted(
        "import time\n"
        "class Library:\n"
        "    __del__ = pressed\n"
        "def work(*_, **__):\n"
        "    Library()\n"
        "    time.sleep(60)\n"
        "    raise SystemExit('it went on')\n"
        "capture.load = work"
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


@pytest.mark.slow
def test_ctrl_c_twice_leaves_no_traceback():
    done = interrupted(
        "import atexit\n"
        "from clearhead.cli import given\n"
        "atexit.register(pressed)  # again, while what was begun is ended\n"
        "given.read_text = pressed"
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "stopped\n")


@pytest.mark.slow
def test_without_the_course_libraries_check_says_what_to_install():
    program = (
        "import sys\n"
        "sys.modules['rapidfuzz'] = None\n"
        "from clearhead import cli\n"
        "sys.argv = ['clearhead', 'check']\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'clearhead[course]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_says_what_runs_here():
    found = json.loads(clearhead("doctor", "--json").stdout)
    assert found["Kernels"]["reference"]["works"] is True
    assert found["This machine"]["cpu"]["found"]
    assert set(found) - {"format"} == {"This machine", "Packages", "Kernels", "Plans", "Lens", "Studio"}
    assert "Kernels" in clearhead("doctor").stdout


@pytest.mark.parametrize("arguments", [("check",), ("new", "pack", "x"), ("export", "x", "--to", "csv")])
def test_without_the_course_extra_the_course_commands_say_what_to_install(monkeypatch, arguments):
    for name in [one for one in sys.modules if one.startswith("clearhead.course")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("fsrs", "markdown_it", "rapidfuzz", "snowballstemmer"):
        monkeypatch.setitem(sys.modules, name, None)
    done = clearhead(*arguments)
    assert done.exit_code == 2
    assert "needs" in done.stderr
    assert "pip install 'clearhead[course]'" in done.stderr


def test_where_nothing_confines_the_person_is_asked(monkeypatch):
    from clearhead import sandbox

    asked = []
    consented = []
    monkeypatch.setattr(sandbox, "backend", lambda: None)
    monkeypatch.setattr(sandbox, "consent", lambda: consented.append(True))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(check.typer, "confirm", lambda words, **_: asked.append(words) or len(asked) > 1)
    check.ask_consent()
    assert (len(asked), consented) == (1, [])  # no is no
    check.ask_consent()
    assert consented == [True]


@pytest.mark.parametrize(
    "arguments",
    [("check", "/no/such/pack"), ("check", "."), ("check", "--item", "no-such-item"), ("new", "schema", "x")],
)
def test_what_cannot_be_done_is_reported_on_standard_error_with_status_2(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = clearhead(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("clearhead: ")


def test_a_pack_that_is_wrong_is_a_finding_on_standard_output_with_status_1(tmp_path):
    (tmp_path / "pack.toml").write_text("= 1")
    done = clearhead("check", str(tmp_path))
    assert (done.exit_code, done.stderr) == (1, "")
    assert "not valid TOML" in done.stdout


def test_a_survey_from_the_shell_has_the_librarys_defaults():
    """The command repeats them, because importing them would import torch before `--help` is printed."""
    from clearhead.cli.survey.run import run
    from clearhead.survey import Settings

    given = {name: parameter.default for name, parameter in inspect.signature(run).parameters.items()}
    names = {"part": "part_texts", "batch": "batch_tokens"}
    kept = {names.get(name, name): value for name, value in given.items()} | {"asks": tuple(given["ask"].split(","))}
    assert {name: kept[name] for name in Settings.__dataclass_fields__} == {
        name: getattr(Settings(), name) for name in Settings.__dataclass_fields__
    }
