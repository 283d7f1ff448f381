"""The studio fetches the chat model in the background, unless the user refuses it."""

import os
import threading
from pathlib import Path

import pytest

from clearhead.errors import ModelError
from clearhead.local_models import chat_model
from clearhead.local_models.names import add_model
from clearhead.studio.lens import model_list


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(model_list, "_progress", {})


def test_it_is_fetched_at_the_start_and_closing_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = threading.Event(), threading.Event()

    def fetch(tell: chat_model.Tell) -> Path:
        try:
            while True:
                tell("fetching", 3, 7)
                begun.set()
        finally:
            ended.set()

    monkeypatch.setattr(chat_model, "fetch_chat_model", fetch)
    assert os.environ["CLEARHEAD_MODELS"] == "minimal"
    with model_list.fetching():
        assert model_list.chat_state() == {"here": False}
    assert not begun.is_set()
    monkeypatch.delenv("CLEARHEAD_MODELS")
    with model_list.fetching():
        assert begun.wait(20)
        assert model_list.chat_state() == {"here": False, "doing": "fetching", "done": 3, "total": 7}
    assert ended.is_set()


def test_why_it_could_not_be_fetched_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(_tell: chat_model.Tell) -> Path:
        raise ModelError("no way there")

    monkeypatch.setattr(chat_model, "fetch_chat_model", fetch)
    monkeypatch.delenv("CLEARHEAD_MODELS")
    with model_list.fetching():
        pass
    assert model_list.chat_state() == {"here": False, "doing": "failed", "error": "no way there"}
    assert model_list.writes_at_first() == "induction"


def test_a_shared_studio_offers_its_own_models_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    add_model("mine", tmp_path)
    assert "mine" in model_list.names(shared=False)
    assert model_list.names(shared=True) == ["all-MiniLM-L6-v2", "untrained", "induction"]
