"""However a command fails: one sentence on standard error, a documented status, no traceback. Every command is tried."""

import contextlib
import errno
import functools
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from clearhead import cli, printing, sandbox
from clearhead.cli import exit_status, given, reading
from clearhead.course.check import packs
from clearhead.course.pack.scaffold import new_pack
from clearhead.errors import ModelError
from clearhead.kernels import tuning
from clearhead.kernels.measured.tasks import Cost
from clearhead.local_models import names
from cli.every_command import ALL, COMMAND
from cli.surveyed import make_surveyed, without_work

STATUSES = {0, exit_status.WRONG, exit_status.FAILED, exit_status.STOPPED, exit_status.CLOSED}
# What makes a command do its work, with these files in the folder it runs in: `place` below.
GIVEN = {
    ("see",): ["a word", "--model", "induction"],
    ("compare",): ["induction", "induction", "a word"],
    ("models",): [],
    ("models", "list"): [],
    ("models", "add"): ["broken", "mine"],
    ("models", "remove"): ["named"],
    ("models", "fetch"): [],
    ("check",): ["good", "--receipts", "receipts"],
    ("export",): ["good", "--to", "csv"],
    ("import",): ["q.gift", "--into", "good"],
    ("doctor",): [],
    ("tune",): ["--seconds", "1"],
    ("new", "pack"): ["other"],
    ("new", "item"): ["good", "another", "--kind", "card"],
    ("new", "schema"): ["item"],
    ("survey", "run"): ["induction", "q.gift", "--out", "new", "--no-ray"],
    ("survey", "report"): ["surveyed", "--json"],
    ("studio",): ["--data", "data", "--no-browser", "--port", "0"],
    ("studio", "user", "add"): ["Björn", "--data", "data"],
    ("studio", "user", "list"): ["--data", "data"],
    ("studio", "user", "reset"): ["ada", "--data", "data"],
    ("studio", "user", "remove"): ["ada", "--data", "data"],
}


@pytest.fixture(autouse=True)
def measured_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tune` measures nothing: a second of kernels for each status adds nothing here (kernels/plan/test_figures.py)."""
    cost = Cost(3.0, 0.5, 50.0)
    monkeypatch.setattr(tuning, "measure", lambda seconds, tell: {("forward", torch.float32): (cost, cost)})


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Skip slow work: a model runs once, nothing is proved, nothing is served."""
    import uvicorn
    from argon2 import PasswordHasher
    from matplotlib.figure import Figure

    from clearhead.course import exchange
    from clearhead.local_models import chat_model
    from clearhead.studio.accounts import accounts
    from clearhead.studio.app import serving
    from clearhead.views import plot
    from clearhead.views.page import html

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "look", functools.lru_cache(reading.look))
        patch.setattr(plot, "grid", lambda *_, **__: Figure())
        patch.setattr(plot, "divergence", lambda *_, **__: Figure())
        patch.setattr(html, "page", lambda *_, **__: "a page")
        without_work(patch)
        patch.setattr(packs, "prove_pack", lambda *_, **__: [])
        patch.setattr(packs, "_pages", lambda *_: 0)
        patch.setattr(exchange, "prove_pack", lambda *_, **__: [])
        patch.setattr(serving, "prove", lambda library, *_: library)
        patch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
        patch.setattr(accounts, "PasswordHasher", lambda **_: PasswordHasher(1, 8, 1))
        patch.setattr(sandbox, "must_confine", lambda: None)
        patch.setattr(chat_model, "fetch_chat_model", lambda _tell: Path("model"))
        yield


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_pack(tmp_path_factory.mktemp("pack") / "good")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None, pack: Path) -> Path:
    """A folder with a pack, questions and a database, and with files that are unusable in several ways."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pack, "good")
    Path("q.gift").write_text("::a:: What is 2 + 2? {=4 ~5}\n")
    Path("binary").write_bytes(b"\x00\xff\xfe\x81" * 9)
    Path("folder").mkdir()
    Path("broken").mkdir()
    Path("broken/pack.toml").write_bytes(b"\xff\xfe")
    make_surveyed(Path("surveyed"))
    Path("broken/config.json").write_bytes(b"\xff\xfe")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    names.add_model("named", Path("broken"))
    return tmp_path


@pytest.fixture(scope="module")
def with_ada(tmp_path_factory: pytest.TempPathFactory, quick: None) -> Path:
    data = tmp_path_factory.mktemp("ada")
    assert CliRunner().invoke(cli.app, ["studio", "user", "add", "ada", "--data", str(data)]).exit_code == 0
    return data


def run(*arguments: str) -> Any:
    """Run a command and check that it ends with a status and, unless that is 0, a message."""
    done = CliRunner().invoke(cli.app, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code in STATUSES, done.output
    assert "Traceback" not in done.output
    if done.exit_code == exit_status.FAILED:
        assert done.stderr.strip(), arguments
    elif done.exit_code == exit_status.WRONG:
        assert done.stdout.strip(), arguments
    return done


def test_every_command_is_tried_here() -> None:
    assert set(GIVEN) == set(ALL)


WRONG_PATHS = (
    "",
    "nowhere/at/all",
    "binary",
    "binary/inside",
    "folder",
    "broken",
    "/proc/nothing",
    "n" * 300,
    "\udcff",
)
WRONG_TEXTS = ("bogus", "\udcff", "", "a\x1b[31m", "x" * 5000, "-1")
WRONG_NUMBERS = ("abc", "-1", "", "1.5", "99999999999999999999", "nan")


def wrong(parameter: Any) -> tuple[str, ...]:
    descriptor = getattr(parameter, "type_descriptor", None)  # Typer 0.19 has Click's type instead
    kind = str(descriptor.annotation if descriptor else parameter.type).lower()
    return WRONG_NUMBERS if "int" in kind else WRONG_PATHS if "path" in kind else WRONG_TEXTS


def test_the_kinds_of_parameters_are_told_apart() -> None:
    kinds = {parameter.name: wrong(parameter) for parameter in ALL["see",].params}
    assert (kinds["html"], kinds["head"], kinds["model"]) == (WRONG_PATHS, WRONG_NUMBERS, WRONG_TEXTS)


def try_each(name: tuple[str, ...], most: int | None) -> None:
    """Give each parameter of a command wrong values, the first few of each kind or all of them."""
    for at, parameter in enumerate(ALL[name].params):
        if getattr(parameter, "is_flag", False) or parameter.name in ("help", "watch"):
            continue
        option = next((one for one in parameter.opts if one.startswith("--")), None)
        for value in wrong(parameter)[:most]:
            if option is not None:
                run(*name, *GIVEN[name], f"{option}={value}")
            elif at < len(GIVEN[name]):
                run(*name, *(value if place == at else one for place, one in enumerate(GIVEN[name])))


@pytest.mark.slow
@pytest.mark.parametrize("name", GIVEN, ids=" ".join)
def test_a_wrong_value_of_any_parameter(name: tuple[str, ...], place: Path) -> None:
    try_each(name, 1)


@pytest.mark.stress
@pytest.mark.parametrize("name", GIVEN, ids=" ".join)
def test_every_wrong_value_of_any_parameter(name: tuple[str, ...], place: Path) -> None:
    try_each(name, None)


@pytest.mark.parametrize("name", GIVEN, ids=" ".join)
def test_an_unknown_option_a_missing_argument_and_one_too_many(name: tuple[str, ...], place: Path) -> None:
    assert run(*name, *GIVEN[name], "--no-such-option").exit_code == exit_status.FAILED
    assert run(*name, *GIVEN[name], *["more"] * 4).exit_code in (exit_status.FAILED, 0)
    if name[0] != "studio" or len(name) > 1:
        required = any(parameter.required for parameter in ALL[name].params)
        if required:
            assert run(*name).exit_code == exit_status.FAILED


# Standard output as the shell may hand it over.
def full() -> io.TextIOWrapper:
    return io.TextIOWrapper(Path("/dev/full").open("wb"), encoding="utf-8")


def closed_pipe() -> io.TextIOWrapper:
    reading, writing = os.pipe()
    os.close(reading)
    return io.TextIOWrapper(os.fdopen(writing, "wb"), encoding="utf-8")


def ascii_only() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii")


def write_to(monkeypatch: pytest.MonkeyPatch, stream: io.TextIOWrapper, *arguments: str) -> tuple[int, str, str]:
    """Run a command with this standard output: its status, what reached the stream, and its standard error."""
    errors = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", errors)
        with pytest.raises(SystemExit) as left:
            COMMAND.main(list(arguments))
    assert "Traceback" not in errors.getvalue()
    shown = stream.buffer.getvalue().decode("ascii") if isinstance(stream.buffer, io.BytesIO) else ""
    with contextlib.suppress(OSError):
        stream.close()
    return int(left.value.code or 0), shown, errors.getvalue()


def can_write(name: tuple[str, ...], with_ada: Path) -> list[str]:
    """Arguments that make a command write to standard output."""
    return [*name, *(str(with_ada) if one == "data" and len(name) == 3 else one for one in GIVEN[name])]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("name", GIVEN, ids=" ".join)
def test_a_full_disk(name: tuple[str, ...], place: Path, with_ada: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, _, errors = write_to(monkeypatch, full(), *can_write(name, with_ada))
    assert status == exit_status.FAILED, errors
    assert errors.count("clearhead: ") == 1


@pytest.mark.parametrize("name", GIVEN, ids=" ".join)
def test_a_reader_that_has_gone(
    name: tuple[str, ...], place: Path, with_ada: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, _ = write_to(monkeypatch, closed_pipe(), *can_write(name, with_ada))
    assert status in (exit_status.CLOSED, exit_status.FAILED)  # an empty pack: refused before writing


@pytest.mark.parametrize("name", GIVEN, ids=" ".join)
def test_a_terminal_that_knows_ascii_alone(
    name: tuple[str, ...], place: Path, with_ada: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, errors = write_to(monkeypatch, ascii_only(), *can_write(name, with_ada))
    assert status in (0, exit_status.FAILED), errors


@pytest.mark.parametrize("name", GIVEN, ids=" ".join)
def test_ctrl_c_and_other_ends(name: tuple[str, ...], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, status in (
        (KeyboardInterrupt(), exit_status.STOPPED),
        (typer.Abort(), exit_status.STOPPED),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), exit_status.CLOSED),
        (MemoryError(), exit_status.FAILED),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), exit_status.FAILED),
        (PermissionError(errno.EACCES, "Permission denied", "a/file"), exit_status.FAILED),
        (ModuleNotFoundError("No module named 'rich'", name="rich"), exit_status.FAILED),
        (ModelError("it is not there. Give another."), exit_status.FAILED),
    ):

        def fails(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(ALL[name], "callback", fails)
        left, shown, errors = write_to(monkeypatch, ascii_only(), *name, *GIVEN[name])
        assert (left, shown) == (status, "")
        assert errors.count("\n") == (status != exit_status.CLOSED)


def test_an_unwritable_error_stream_is_no_reason_for_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = closed_pipe()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        printing.report("nobody hears this")
    with contextlib.suppress(OSError):
        stream.close()


def test_the_statuses_are_in_the_help_and_the_reference() -> None:
    shown = run("--help").stdout
    written = (Path(__file__).parents[2] / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    for status in (*STATUSES, exit_status.FAULT):
        assert f"{status} " in shown
        assert f"| {status} |" in written
    for name in GIVEN:
        assert f"`clearhead {' '.join(name)}" in written


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (["see", "g.png"], "g.png does not exist"),
        (["see", "./a b/g.JPG"], "does not exist"),
        (["see", "folder.png"], "not a file"),
    ],
)
def test_a_picture_that_is_not_there_is_not_read_as_a_text(said: list[str], shown: str, place: Path) -> None:
    Path("folder.png").mkdir()
    done = run(*said, "--model", "induction")
    assert done.exit_code == exit_status.FAILED
    assert shown in done.stderr


@pytest.mark.parametrize(
    "text", ["I saw it in g.png", "end.", "e.g. this", "word " * 70 + "a.png", "3.14", "a note.txt"]
)
def test_a_text_with_a_full_stop_is_a_text(text: str, place: Path) -> None:
    assert given.read_words(text, None) == text.strip()


def test_a_file_taken_for_a_text_is_pointed_out(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert given.read_words("q.gift", None) == "q.gift"
    assert "give --file q.gift" in capsys.readouterr().err


def test_json_stays_json_in_ascii(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, shown, _ = write_to(monkeypatch, ascii_only(), "see", "é ü", "--model", "induction", "--json")
    assert status == 0
    assert json.loads(shown)["tokens"]


def test_shades_stay_apart_in_ascii() -> None:
    shades = " ░▒▓█".encode("ascii", exit_status.ENCODING_ERRORS).decode()
    assert len(set(shades)) == 5
    assert not set(shades[1:]) & set(".:*#")  # the second model's, in a comparison
    assert all(len(plain) == 1 for plain in exit_status._REPLACED.values())
