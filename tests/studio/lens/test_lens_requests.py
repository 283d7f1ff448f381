"""Requests to the Lens besides a text: a decoder's target and saved files; and its note about unknown text."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clearhead import cli
from clearhead.capture import load, read
from cli.test_see import TARGET, TEXT, folders  # noqa: F401
from studio.conftest import Visitor


def read_page(visitor: Visitor, **wanted: Any) -> dict[str, Any]:
    answer = visitor.client.post("/lens/read", json=wanted, headers={"x-csrf-token": visitor.token()})
    return json.loads(answer.text.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_a_target_shows_both_sides_of_an_encoder_decoder(visitor: Visitor, folders: Any, kind: str) -> None:  # noqa: F811
    asked = {"text": TEXT, "model": folders(kind), "target": TARGET}
    payload = read_page(visitor, **asked)["payload"]
    assert payload["target"] == TARGET
    assert len(payload["layers"]) == 3
    assert payload["axes"][payload["layers"][2]["queries"]]["tokens"][1:] == TARGET.split()
    alone = read_page(visitor, text=TEXT, model=asked["model"])["payload"]
    assert len(alone["layers"]) == 1
    assert "encoder alone" in alone["note"]
    assert visitor.client.get("/lens/data", params=asked).json()["target"] == TARGET
    page = visitor.client.get("/lens", params={**asked, "plain": "1"}).text
    assert f'value="{TARGET}"' in page
    assert "Layer 2, head 1" in visitor.client.get("/lens", params={**asked, "plain": 1, "layer": 2, "head": 1}).text


def test_a_target_for_another_model_is_refused_in_a_sentence(visitor: Visitor) -> None:
    assert "takes no target" in read_page(visitor, text="a", model="induction", target="b")["error"]
    assert "takes no target" in visitor.get("/lens?plain=1&text=a&model=induction&target=b")


@pytest.mark.slow
def test_the_open_head_is_saved_as_a_file(visitor: Visitor) -> None:
    answer = read_page(visitor, text="a cat sat", model="induction")
    for kind in answer["payload"]["saves"]:
        given = {"key": answer["key"], "kind": kind, "layer": 1, "head": 3}
        file = visitor.client.get("/lens/save", params=given)
        assert file.status_code == 200, kind
        assert file.headers["content-disposition"] == f'attachment; filename="attention-1-3.{kind}"'
        assert file.content
    assert visitor.client.get("/lens/save", params={**given, "head": 4}).status_code == 422
    assert visitor.client.get("/lens/save", params={**given, "kind": "exe"}).status_code == 422
    assert "no longer kept" in visitor.get("/lens/save?key=none&kind=csv", 422)


def test_what_the_tokenizer_does_not_know_is_said(visitor: Visitor) -> None:
    loaded = load()
    assert read(loaded, "a plain text").note is None
    assert read(loaded, "typed as [UNK]").note is None
    note = read(loaded, "snow ☃ and 𓀀 and ☃").note
    assert note == "The tokenizer has no token for “☃”, “𓀀”: the model reads [UNK] there."
    assert read_page(visitor, text="snow ☃")["payload"]["note"].startswith("The tokenizer has no token for “☃”")


@pytest.mark.slow
def test_commands_say_which_page_shows_the_same(tmp_path: Path) -> None:
    run = CliRunner().invoke
    shown = run(cli.app, ["see", "a cat", "--model", "induction", "--layer", "1", "--head", "2"])
    assert "open /lens?text=a+cat&model=induction&layer=1&head=2&token=-1" in shown.stderr.replace("\n", "")
    compared = run(cli.app, ["compare", "-", "untrained", "a cat"])
    assert "/lens?text=a+cat&second=untrained" in compared.stderr
    assert "/lens" not in run(cli.app, ["see", "a cat", "--model", "induction", "--json"]).output
