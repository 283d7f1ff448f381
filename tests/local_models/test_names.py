"""Names of model folders: adding, removing, and reporting a damaged list."""

from pathlib import Path

import pytest

from clearhead.capture import load
from clearhead.errors import ClearheadError, ModelError, OptionError
from clearhead.local_models import names
from clearhead.local_models.names import add_model, folder_of, named_models, names_file, remove_model


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")


@pytest.mark.parametrize(
    "name", ["", "a b", "-", "../up", "a/b", "é", "x" * 65, "a\n", "..", "\x1b[2J", "a\\b", "\x9b1m", "~"]
)
def test_names_that_cannot_be(name: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be the name"):
        add_model(name, tmp_path / "model")
    assert not names_file().exists()


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        add_model("a", tmp_path)
    with pytest.raises(OptionError, match="Choose another name"):
        add_model("induction", tmp_path / "model", taken=("induction",))
    with pytest.raises(OptionError, match=r"no model has the name 'a'\. Names: none"):
        remove_model("a")
    monkeypatch.setattr(names, "MOST", 1)
    add_model("a", tmp_path / "model")
    add_model("a", tmp_path / "model")  # given again
    with pytest.raises(OptionError, match="there are 1 names"):
        add_model("b", tmp_path / "model")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', "\udcff", '{"a": "' + "x" * (1 << 20) + '"}'])
def test_a_damaged_list_is_an_error_in_words_and_hides_no_other_model(content: str) -> None:
    names_file().parent.mkdir(parents=True)
    names_file().write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ClearheadError, match=r"cannot be read\. Remove it"):
        named_models()
    assert folder_of("induction") is None  # other models load as before


def test_a_home_below_a_file_has_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file" / "home"))
    assert named_models() == {}
    with pytest.raises(OptionError, match=r"Not a directory\. Make room there, or set XDG_CONFIG_HOME"):
        add_model("a", tmp_path / "model")


def test_a_list_that_may_not_be_read_is_not_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    names_file().parent.mkdir(parents=True)
    names_file().mkdir()
    with pytest.raises(ModelError, match=r"cannot be read: Is a directory\. .*set XDG_CONFIG_HOME"):
        named_models()


def test_a_home_that_is_not_there_is_a_folder_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="no-such-user"):
        add_model("a", Path("~no-such-user/model"))
    with pytest.raises(ModelError, match="does not exist"):
        load("~no-such-user/model")


def test_a_name_that_stands_for_a_name_ends() -> None:
    names_file().parent.mkdir(parents=True)
    names_file().write_text('{"a": "a", "b": "c", "c": "b"}')
    for name in ("a", "b"):
        with pytest.raises(ModelError, match="does not exist"):
            load(name)
