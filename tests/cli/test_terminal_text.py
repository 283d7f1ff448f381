"""Nothing that a pack, a model, a file or a name says acts on the terminal: escapes, C1, bidi marks, links, markup."""

import ast
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

import clearhead
from clearhead.cli import app, doctor
from clearhead.console import console
from clearhead.printing import clean, show_entry, show_json

GOOD = Path(__file__).parents[1] / "packs" / "good"
HOSTILE = (
    "\x1b[2J", "\x1b]8;;http://x.example\x1b\\", "\x1b]0;title\x07", "\x9b31m", "\x9d8;;x\x9c", "\x08\x08", "\r", "\x7f", "\u202e",
    "\u2066", "\u200f", "\u2028", "\U000e0041", "\udc9b", "\x00", "\x0e",
)  # fmt: skip
ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\U000e0000-\U000e007f\ud800-\udfff]"
)


@pytest.mark.parametrize("text", HOSTILE)
def test_every_control_is_shown(text: str) -> None:
    assert not ACTS.search(clean(f"a{text}b"))
    assert clean(f"a{text}b").startswith("a\\")


def test_text_of_every_language_stays() -> None:
    text = "Zażółć gęślą jaźń, 日本語, שלום, مرحبا, 👩\u200d🔬, a\tb\nc, naïve e\u0301"
    assert clean(text) == text


@pytest.mark.parametrize("text", [*HOSTILE, "[red]x[/red]", "[link=http://x.example]x[/link]", ":smile:"])
def test_rich_prints_it_cleaned_and_reads_no_markup(text: str) -> None:
    shown = io.StringIO()
    screen = console(file=shown, force_terminal=True, width=200, color_system="truecolor")
    table = Table(text)
    table.add_row(text.encode(errors="replace").decode(), Text(text.encode(errors="replace").decode(), style="red"))
    for one in (text, Text(text), table, Panel(text), Text(text, style="link http://x.example")):
        screen.print(one)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue())  # the console's own colours
    assert not ACTS.search(plain.replace("\r\n", "\n"))
    assert "\x1b[2J" not in shown.getvalue()
    assert "\x1b]" not in shown.getvalue()
    if text.startswith(("[", ":")):
        assert text in plain


@pytest.mark.parametrize("is_terminal", [False, True])
def test_lines_end_without_spaces_in_a_pipe(is_terminal: bool) -> None:
    """Rich pads the cells of tables, and leaves a space where it wraps; a terminal may need it for a background."""
    shown = io.StringIO()
    screen = console(file=shown, force_terminal=is_terminal, width=17, color_system=None)
    table = Table(box=None, show_header=False)
    for row in (("a", "b"), ("longer", "x"), ("", "")):
        table.add_row(*row)
    for one in (
        table,
        Text("twelve letters, and  more", style="bold"),
        Text.assemble("a ", (" ", "red"), " b"),
        "  in  \n\nc ",
    ):
        screen.print(one)
    lines = shown.getvalue().splitlines()
    assert any(line != line.rstrip() for line in lines) == is_terminal
    if not is_terminal:
        assert lines == [" a       b", " longer  x", "", "twelve letters,", "and  more", "a   b", "  in", "", "c"]


def test_entries_cannot_forge_one_another(capsys: pytest.CaptureFixture[str]) -> None:
    show_entry("a.md:3: wrong\nok  b  card")
    assert capsys.readouterr().out == "a.md:3: wrong\n    ok  b  card\n"


def test_json_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"x": "".join(one for one in HOSTILE if one != "\udc9b"), "y": "日本"}
    show_json(data)
    out = capsys.readouterr().out
    assert not ACTS.search(out)
    assert json.loads(out) == data
    assert "日本" in out


@pytest.mark.parametrize("text", ["\x1b[2J\x1b]0;x\x07", "\x9b31m\u202e"])
def test_check_import_and_new(tmp_path: Path, text: str) -> None:
    """What a file and its name say, by each command that repeats it."""
    pack = Path(shutil.copytree(GOOD, tmp_path / "pack"))
    item = pack / "items" / "card-word.md"
    item.write_text(item.read_text().replace("## Rule", f"## Rule{text}"))
    notes = tmp_path / f"n{text.replace('/', '')}.txt"
    notes.write_text(f"one field{text}\na\tb\n")
    (tmp_path / "bad.gift").write_text(f"{text}{{")
    (tmp_path / "bad.xml").write_text(f"<{text}")
    (tmp_path / "bad.toml").write_text(f"[[questions]]\ntype = '''{text.translate({27: None, 7: None})}'''")
    good = Path(shutil.copytree(GOOD, tmp_path / "good"))
    runs = [
        ["check", str(pack)], ["check", str(pack / text)], ["check", str(good), "--item", text],
        *(["import", str(file), "--into", str(good)] for file in (notes, *sorted(tmp_path.glob("bad.*")))),
        ["import", str(notes), "--into", str(good), "--topic", text], ["new", "pack", str(tmp_path / text)],
        ["new", "item", str(good), text, "--kind", "card"], ["export", str(pack), "--to", text],
        ["see", "a", "--model", f"./{text}"], ["see", "--file", f"./{text}"], ["compare", f"./{text}", "-", "a"],
        ["tune", text], ["models", "fetch", text], [text], ["see", "a", f"--{text}"],
    ]  # fmt: skip
    for run in runs:
        result = CliRunner().invoke(app, run)
        assert result.exit_code in (0, 1, 2), (run, result.output, result.exception)
        assert not ACTS.search(result.output), run
        assert result.output, run


def test_the_doctor_tells_a_pipe_one_line_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that grep finds all of it, and a path can be copied; a terminal wraps at its width."""
    report = [
        doctor.Finding("Here", "model", True, "a name in /" + "long/" * 41 + "model"),
        doctor.Finding("Here", "none", None, "x"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: report)
    lines = CliRunner().invoke(app, ["doctor"]).output.splitlines()
    assert lines == ["Here", f"model         yes  {report[0].detail}", "none               x"]


def test_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = doctor.Finding("Here\x1b[2J", "name[red]\x9b", True, "\x1b]8;;x\x1b\\found[bold]")
    monkeypatch.setattr(doctor, "examine", lambda: [finding])
    for more in ([], ["--json"]):
        out = CliRunner().invoke(app, ["doctor", *more]).output
        assert not ACTS.search(out)
        assert "[red]" in out
        assert "[bold]" in out


SEE_EACH = """
import sys
from clearhead.__main__ import main
for model in sys.argv[1:]:  # in one process: it takes six seconds to start
    sys.argv = ["clearhead", "see", "a b", "--model", model]
    try:
        main()
    except SystemExit:
        pass
    print("done", file=sys.stderr, flush=True)
"""
ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31m"


@pytest.mark.slow
def test_what_transformers_says_of_a_model(tmp_path: Path) -> None:
    """Its own handler writes names out of a model's files to standard error, past every command; but no list of weights."""
    import torch
    from safetensors.torch import load_file, save_file

    source = Path(clearhead.__file__).parent / "capture" / "models" / "induction"
    folder = Path(shutil.copytree(source, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    weights[f"more{ESCAPE}"] = torch.zeros(2)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((folder / "config.json").read_text())
    rope = {"rope_type": f"x{ESCAPE}", "rope_theta": 1.0}
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    (other / "config.json").write_text(json.dumps(settings | {"rope_scaling": rope, "rope_parameters": rope}))
    ran = subprocess.run([sys.executable, "-c", SEE_EACH, folder, other], capture_output=True, text=True, check=False)
    assert ran.stderr.count("done") == 2
    of_weights, of_positions = ran.stderr.split("done")[:2]
    assert "owned" not in of_weights
    assert r"\x1b]0;owned\x07\x1b[2J\x9b31m" in of_positions
    assert not ACTS.search(ran.stdout + ran.stderr)


def test_a_name_of_a_model_and_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / f"d{ESCAPE}\nok  forged"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    runs = [["add", str(folder), "mine"], ["list"], ["list", "--json"], ["remove", "mine"], ["remove", ESCAPE],
            ["add", str(folder), ESCAPE], ["add", str(tmp_path / ESCAPE), "x"]]  # fmt: skip
    for run in runs:
        out = CliRunner().invoke(app, ["models", *run]).output
        assert not ACTS.search(out), run
        assert out, run
        assert "\nok  forged" not in out, run


@pytest.mark.slow
def test_no_other_place_writes() -> None:
    """`print`, `typer.echo`, Rich's own Console and the standard streams are used in printing.py and console.py alone.

    `__main__.py` writes when the extra `cli` is missing.
    """
    root = Path(clearhead.__file__).parent
    wrong = []
    for file in root.rglob("*.py"):
        if file.name in ("printing.py", "console.py", "__main__.py") or "packs" in file.relative_to(root).parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("print", "typer.echo", "typer.secho", "Console", "sys.stdout.write", "sys.stderr.write"):
                wrong.append(f"{file.relative_to(root)}:{node.lineno}: {called}")
    assert [place for place in wrong if not place.startswith("sandbox/")] == []
