"""`clearhead models`: a name is taken wherever a model is."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clearhead import capture
from clearhead.cli import app
from clearhead.errors import ModelError

INDUCTION = Path(capture.__file__).parent / "models" / "induction"


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_a_name_is_taken_wherever_a_model_is() -> None:
    assert "copier is " in run("models", "add", str(INDUCTION), "copier")
    listed = {row["name"]: row for row in json.loads(run("models", "--json"))["models"]}
    assert listed["copier"] == {"name": "copier", "state": "here", "about": str(INDUCTION)}
    assert capture.load("copier").max_length == 512
    assert json.loads(run("see", "--model", "copier", "--json", "a cat"))["model"] == "copier"
    compared = json.loads(run("compare", "copier", "induction", "--json", "a cat"))
    assert compared
    assert str(INDUCTION) in run("models", "remove", "copier")
    assert (INDUCTION / "config.json").is_file()
    with pytest.raises(ModelError):
        capture.load("copier")


@pytest.mark.parametrize("is_here", [True, False])
def test_the_list_says_how_to_fetch_the_chat_model_only_where_it_is_missing(
    is_here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clearhead.local_models.chat_model.has_chat_model", lambda: is_here)
    assert ("clearhead models fetch" in run("models", "list")) is not is_here


def test_mistakes_are_one_sentence_and_status_2(tmp_path: Path) -> None:
    for words in (["remove", "none"], ["add", str(tmp_path), "a"], ["add", str(INDUCTION), "induction"]):
        result = CliRunner().invoke(app, ["models", *words])
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
    assert "not here" in run("models", "list")
