"""`clearhead export` and `import`: what is not carried over is listed with its place, and the exit status says so."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from clearhead import cli, course, sandbox
from clearhead.course import exchange
from clearhead.course.check import packs
from clearhead.course.exchange.draft import Draft, write
from clearhead.course.pack.loader import find
from clearhead.course.pack.scaffold import new_pack
from clearhead.errors import PackError

GOOD = Path(__file__).parents[2] / "packs" / "good"
confined = pytest.mark.skipif(sandbox.backend() is None, reason=f"no confinement here: {sandbox.explain()}")
LOSSY = "One {=a ~%50%b}\n\nTwo {=a ~b}\n"


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    (tmp_path / "bank.gift").write_text(LOSSY)
    return new_pack(tmp_path / "mine")


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, list(map(str, arguments)))


def test_an_import_that_loses_something_ends_with_1(pack: Path, tmp_path: Path) -> None:
    done = call("import", tmp_path / "bank.gift", "--into", pack)
    assert done.exit_code == 1
    assert "2 drafts in" in done.stdout
    assert done.stderr == "not carried over:\n  bank.gift:1: the weight of 50 % of 'b'\n"
    assert len(list((pack / "drafts").glob("*.md"))) == 2


def test_a_strict_import_writes_nothing(pack: Path, tmp_path: Path) -> None:
    done = call("import", tmp_path / "bank.gift", "--into", pack, "--strict")
    assert done.exit_code == 2
    assert "nothing was written" in done.stderr
    assert "bank.gift:1: the weight of 50 %" in done.stderr
    assert not (pack / "drafts").exists()
    (tmp_path / "bank.gift").write_text("Two {=a ~b}\n")
    assert call("import", tmp_path / "bank.gift", "--into", pack, "--strict").exit_code == 0


@confined
@pytest.mark.slow
def test_an_export_that_loses_something_ends_with_1(tmp_path: Path) -> None:
    done = call("export", GOOD, "--to", "qti2", "--out", tmp_path / "a.zip")
    assert done.exit_code == 1
    assert "wrote 12 items" in done.stdout
    assert "item predict-range: its hints" in done.stderr
    strict = call("export", GOOD, "--to", "qti2", "--out", tmp_path / "b.zip", "--strict")
    assert (strict.exit_code, (tmp_path / "b.zip").exists()) == (2, False)


@pytest.mark.slow
def test_a_shipped_pack_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exchange, "prove_pack", lambda pack, cache: [])  # it takes minutes
    done = call("export", "attention", "--to", "csv")
    assert (done.exit_code, done.stdout) == (0, "wrote 0 items to attention-csv.csv\n")
    for arguments in (("export", "atention", "--to", "csv"), ("export", tmp_path / "atention", "--to", "csv")):
        done = call(*arguments)
        assert done.exit_code == 2
        assert "not a folder, nor the name of a shipped pack (attention)" in done.stderr
    done = call("export", "attention", "--to", "csv", "--out", "nowhere/a.csv")
    assert done.exit_code == 2
    assert "nowhere is not a folder" in done.stderr


@pytest.mark.slow
def test_check_takes_a_shipped_pack_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packs, "prove_pack", lambda pack, **options: [])  # it takes minutes
    item = next(iter(course.load(course.shipped()[0]).items))
    done = call("check", "attention", "--item", item)
    assert (done.exit_code, "0 of 0 items proved" in done.stdout) == (0, True)
    assert "not a folder, nor the name of a shipped pack (attention)" in call("check", "atention").output


def test_a_folder_with_a_pack_goes_before_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "attention").mkdir()
    assert find("attention") == course.shipped()[0]
    (tmp_path / "attention" / "pack.toml").write_text("")
    assert find("attention") == Path("attention")
    with pytest.raises(PackError, match="not a folder, nor the name of a shipped pack"):
        find("./elsewhere")


def test_a_draft_keeps_what_it_was_given(tmp_path: Path) -> None:
    """Sections, programs and TOML in imported text stay text; code keeps its lines."""
    new_pack(tmp_path / "mine")
    code = "```python proof\n# then\n## Stem\n+++\n```"
    origin = (("deck", 'a\nid = "x"\u2028y'), ("tags", "t"))
    options = (("yes", True, "so"), ("no\u2028## Rule\n\n~~~\n## Rule", False, "why not"))
    draft = Draft("A", f"{code}\n\n## Rule", "", options, "", "because", ("look", "again"), origin)
    (place,) = write([draft], tmp_path / "mine", "first-topic")
    text = place.read_text()
    assert "```python\n# then\n## Stem\n+++\n```\n\n\\## Rule" in text
    assert '\n# deck: a id = "x" y\n# tags: t\n' in text
    assert [part for part in re.findall(r"^## .*", text, re.MULTILINE) if part != "## Stem"] == [
        "## Hint", "## Hint", "## Option", "## Option", "## Rule", "## Rationale name-2", "## Rationale", "## Rule",
    ]  # fmt: skip
    assert "## Rationale\n\nso\n\nbecause" in text
    assert text.count("~~~") == 2  # a fence that was open is closed
