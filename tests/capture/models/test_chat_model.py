"""The chat model as capture loads it, if it is on this machine."""

import json
import os
from pathlib import Path

import pytest

from clearhead import capture
from clearhead.capture.models import writing
from clearhead.errors import ModelError
from clearhead.local_models import chat_model
from clearhead.local_models.chat_model import MANIFEST


def test_a_folder_without_the_model_says_how_to_fetch_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in (chat_model.CHAT_NAME, "smollm2"):
        with pytest.raises(ModelError, match="clearhead models fetch"):
            capture.load(name)


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> capture.Loaded:
    models = Path(os.environ["CLEARHEAD_TEST_MODELS"])
    if not (models / chat_model.CHAT_NAME / MANIFEST).is_file():
        pytest.skip("the chat model is not on this machine: clearhead models fetch")
    monkeypatch.setenv("XDG_CACHE_HOME", str(models.parents[1]))
    return capture.load(chat_model.CHAT_NAME)


@pytest.mark.stress
def test_the_chat_model_knows_what_it_should(chat: capture.Loaded) -> None:
    assert chat.name == chat_model.CHAT_NAME
    assert len(chat.writer.model.layers) == 30
    manifest = json.loads((chat_model.chat_folder() / MANIFEST).read_text())
    assert manifest["from"]["sha256"] == chat_model.SHA256
    for prompt, answer in (
        ("The capital of France is", " Paris"),
        ("When Mary and John went to the store, John gave a drink to", " Mary"),
    ):
        ids = writing.prompt_ids(chat, prompt, chat=False)
        (token,) = writing.Writing(chat, ids, known=len(ids)).step()
        assert chat.tokenizer.decode(token.token_id) == answer
    ids = writing.prompt_ids(chat, "Say hello.", chat=True)
    assert "<|im_start|>assistant" in chat.tokenizer.decode(ids)
