"""Why a head attends, asked from the pages of the Lens: the parts of one link's logit."""

import json
from typing import Any

import pytest
import torch
import transformers as hf

from clearhead.capture.models.loading import Loaded
from clearhead.studio.lens import readings
from clearhead.studio.lens.reading_request import ReadingRequest
from clearhead.studio.lens.readings import Readings
from clearhead.views.page.questions import answer
from studio.conftest import Visitor

from .test_writing import PROMPT, lines

TEXT = "The animal was too tired"


def silent(*_: Any) -> None:
    """Ignore progress."""


def test_a_link_of_a_reading_is_split_and_both_sides_sum_to_its_logit(visitor: Visitor) -> None:
    reading = readings.READINGS.read(ReadingRequest(TEXT), silent)
    matrix = list(reading.record.values())[3]
    for query, key in ((2, 5), (6, 0)):
        question = json.dumps({"kind": "why", "layer": 3, "head": 7, "query": query, "key": key})
        why = json.loads(visitor.get(f"/lens/answer?text={TEXT}&question={question}"))["why"]
        exact = torch.log(matrix[0, 7, query, key]) + matrix._known_lse()[0, 7, query]
        assert why["logit"] == pytest.approx(float(exact), abs=1e-4)
        assert sum(why["query"]) == pytest.approx(why["logit"])
        assert sum(why["key"]) == pytest.approx(why["logit"])
        assert why["weight"] == pytest.approx(float(matrix[0, 7, query, key]))
        assert {"token", "position", "0.0", "2.11", "mlp 2"} < set(why["names"])
        assert len(why["pairs"]) == 3


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ({"layer": 9, "head": 0, "query": 0, "key": 0}, "layers"),
        ({"layer": 0, "head": 0, "query": 99, "key": 0}, "there is no link 99"),
        ({"layer": 0, "head": 0, "query": 0}, "key is None"),
        ({"layer": 0, "head": 0, "query": 0, "key": 0, "rollout": 1}, "Turn rollout off"),
    ],
)
def test_what_cannot_be_split_is_refused_in_a_sentence(visitor: Visitor, place: dict[str, Any], reason: str) -> None:
    rollout = place.pop("rollout", 0)
    about = json.dumps({"kind": "why", **place})
    reply = visitor.client.get("/lens/answer", params={"text": TEXT, "rollout": rollout, "question": about})
    assert reply.status_code == 422
    assert reason in reply.json()["error"]


def test_a_model_of_another_family_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tokenizer = readings.READINGS.loaded(None, silent).tokenizer
    config = hf.DistilBertConfig(vocab_size=len(tokenizer), dim=12, n_heads=3, n_layers=2, hidden_dim=13)
    other = Loaded(hf.DistilBertModel(config).eval(), tokenizer, "other", 512)
    kept = Readings()
    monkeypatch.setattr(kept, "_loaded", lambda *_: other)
    reading, _second = kept.with_models(ReadingRequest(TEXT), silent)
    with pytest.raises(Exception, match="DistilBertModel is not built as Llama, GPT-2 or BERT"):
        answer(reading, {"kind": "why", "layer": 1, "head": 0, "query": 2, "key": 1})


def test_a_reading_whose_model_was_dropped_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "MODELS", 1)
    kept = Readings()
    question = {"kind": "why", "layer": 1, "head": 0, "query": 4, "key": 2}
    wanted = ReadingRequest(TEXT)
    first = kept.read(wanted, silent)
    whole = answer(first, question)
    kept.loaded("induction", silent)
    assert not first.record._passes  # so that the memory of the model can be reused
    assert kept.read(wanted, silent) is first  # its tiles are still there
    again, _second = kept.with_models(wanted, silent)
    assert again is not first
    assert answer(again, question)["why"]["key"] == pytest.approx(whole["why"]["key"])


def written(visitor: Visitor) -> list[int]:
    return [line["token"]["id"] for line in lines(visitor, count=6) if "token" in line]


def test_a_link_of_a_written_token_names_its_heads_and_is_split_by_one(visitor: Visitor) -> None:
    answer_ids = written(visitor)
    start = next(line["start"] for line in lines(visitor, count=1) if "start" in line)
    place, key = start["prompt"] + 3, 5
    link = {"written": answer_ids, "place": place, "key": key}
    heads = lines(visitor, "/why", **link)[-1]["heads"]
    assert [weight for _, _, weight in heads] == sorted((weight for _, _, weight in heads), reverse=True)
    layer, head, weight = heads[0]
    why = lines(visitor, "/why", **link, layer=layer, head=head)[-1]["why"]
    assert why["weight"] == pytest.approx(weight, abs=1e-6)
    assert sum(why["query"]) == pytest.approx(why["logit"]) == pytest.approx(sum(why["key"]))
    assert {number for number, _, _ in lines(visitor, "/why", **link, layer=1)[-1]["heads"]} == {1}


def test_a_link_without_a_head_is_split_as_the_model_runs_without_it(visitor: Visitor) -> None:
    answer_ids = written(visitor)
    start = next(line["start"] for line in lines(visitor, count=1) if "start" in line)
    link = {"written": answer_ids, "place": start["prompt"] + 2, "key": 4, "layer": 1, "head": 2}
    whole, off = (lines(visitor, "/why", **link, without=heads)[-1]["why"] for heads in ([], [[0, 1]]))
    place = whole["names"].index("0.1")
    assert off["key"][place] == off["query"][place] == 0 != whole["key"][place]


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ({"place": 2, "key": 1}, "does not belong to the current text"),
        ({"place": 10**6, "key": 1}, "does not belong to the current text"),
        ({"place": len(PROMPT) + 2, "key": 10**6}, "does not belong to the current text"),
        ({"place": len(PROMPT) + 2, "key": 1, "layer": 7, "head": 0}, "no such head"),
    ],
)
def test_a_link_that_is_not_there_is_refused(visitor: Visitor, link: dict[str, Any], reason: str) -> None:
    assert reason in lines(visitor, "/why", written=written(visitor), **link)[-1]["error"]
