"""Names of model folders: added, used by capture.load and the command line, removed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clearhead import capture
from clearhead.cli import app
from clearhead.errors import ClearheadError, ModelError, OptionError
from clearhead.local_models import names
from clearhead.local_models.names import add_model, named_models, names_file, remove_model

INDUCTION = Path(capture.__file__).parent / "models" / "induction"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_a_name_is_taken_wherever_a_model_is() -> None:
    assert "copier is " in run("models", "add", str(INDUCTION), "copier")
    listed = {row["name"]: row for row in json.loads(run("models", "--json"))}
    assert listed["copier"] == {"name": "copier", "state": "here", "about": str(INDUCTION)}
    assert capture.load("copier").max_length == 512
    assert "the same page" not in json.loads(run("see", "--model", "copier", "--json", "a cat"))
    compared = json.loads(run("compare", "copier", "induction", "--json", "a cat"))
    assert compared
    assert str(INDUCTION) in run("models", "remove", "copier")
    assert (INDUCTION / "config.json").is_file()
    with pytest.raises(ModelError):
        capture.load("copier")


@pytest.mark.parametrize("name", ["", "a b", "-", "../up", "a/b", "é", "x" * 65, "a\n"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(OptionError, match="cannot be the name"):
        add_model(name, INDUCTION)
    assert not names_file().exists()


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        add_model("a", tmp_path)
    with pytest.raises(OptionError, match="Take another"):
        add_model("induction", INDUCTION, taken=("induction",))
    with pytest.raises(OptionError, match=r"no model has the name 'a'\. Names: none"):
        remove_model("a")
    monkeypatch.setattr(names, "MOST", 1)
    add_model("a", INDUCTION)
    add_model("a", INDUCTION)  # given anew
    with pytest.raises(OptionError, match="there are 1 names"):
        add_model("b", INDUCTION)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', "\udcff", '{"a": "' + "x" * (1 << 20) + '"}'])
def test_a_damaged_list_is_an_error_in_words_and_hides_no_other_model(content: str) -> None:
    names_file().parent.mkdir(parents=True)
    names_file().write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ClearheadError, match=r"cannot be read\. Remove it"):
        named_models()
    assert capture.load("induction").max_length == 512
