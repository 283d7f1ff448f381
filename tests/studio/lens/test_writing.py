"""The Lens that writes: streaming tokens, stopping, continuing, typed words, and refusals."""

import base64
import json
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from clearhead.studio.lens import readings, writing, written_heads
from clearhead.studio.lens.jobs import Stopped
from clearhead.studio.lens.writing import Names, write, writing_request
from clearhead.views.page.packing import unpacked
from studio.conftest import Visitor

PROMPT = "the lighthouse keeper wrote: the ligh"


def lines(visitor: Visitor, path: str = "", **wanted: Any) -> list[dict[str, Any]]:
    """The lines of an answer, which may be one of JSON with status 422."""
    body = {"prompt": PROMPT, "model": "induction", **wanted}
    answer = visitor.client.post(f"/lens/write{path}", json=body, headers={"x-csrf-token": visitor.token()})
    assert answer.status_code in (200, 422), answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_each_token_comes_with_what_it_was_written_from(visitor: Visitor) -> None:
    found = lines(visitor, count=11)
    (start,) = (line["start"] for line in found if "start" in line)
    tokens = [line["token"] for line in found if "token" in line]
    assert found[-1] == {"end": "count"}
    assert "".join(start["tokens"][1:]) == PROMPT
    assert start["prompt"] == len(start["tokens"])
    names = {int(place): name for token in tokens for place, name in token["names"].items()}
    assert "".join(names[token["place"]] for token in tokens) == "thouse ligh"
    for number, token in enumerate(tokens):
        row = unpacked(token["row"])[0]
        assert row.shape == (start["prompt"] + number,)
        assert abs(row.sum() - 1) < 1e-3  # quantised to 16 bits
        assert token["candidates"][0][0] == token["id"]
        assert token["candidates"][0][2] == pytest.approx(token["p"])


def test_going_on_and_another_token_in_a_place_give_what_writing_at_once_gives(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [line["token"] for line in lines(visitor, count=7) if "token" in line]
    begun = [token["id"] for token in whole[:3]]
    rest = [line["token"] for line in lines(visitor, count=4, written=begun) if "token" in line]
    assert [token["id"] for token in rest] == [token["id"] for token in whole[3:]]
    assert [token["place"] for token in rest] == [token["place"] for token in whole[3:]]
    typed = [line["token"] for line in lines(visitor, count=2, written=begun, typed=" cat") if "token" in line]
    assert "".join(typed[i]["names"][str(typed[i]["place"])] for i in range(4)) == " cat"
    assert len(typed) == 4 + 2  # those typed are told too, with what the model looked at there
    monkeypatch.setattr("clearhead.capture.models.writing.REPORTED", 3)  # of a long text, a few at a time
    parts = [line["token"] for line in lines(visitor, count=2, written=begun, typed=" cat") if "token" in line]
    assert [(token["place"], token["id"]) for token in parts] == [(token["place"], token["id"]) for token in typed]


def test_rows_of_one_head_add_up_to_the_mean_over_all(visitor: Visitor) -> None:
    tokens = [line["token"] for line in lines(visitor, count=5) if "token" in line]
    written = [token["id"] for token in tokens]
    heads = [
        lines(visitor, "/rows", written=written, layer=layer, head=head)[-1] for layer in (0, 1) for head in range(4)
    ]
    mean = sum(unpacked(found["rows"]) for found in heads) / 8
    for number, token in enumerate(tokens):
        row = unpacked(token["row"])[0]
        assert abs(mean[number, : len(row)] - row).max() < 1e-4
    assert heads[0]["first"] == tokens[0]["place"]


def test_the_heads_of_what_was_just_written_are_not_read_again(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clearhead.capture.models import writing

    tokens = [line["token"]["id"] for line in lines(visitor, count=7) if "token" in line]
    monkeypatch.setattr(writing, "read_again", None)
    assert "rows" in lines(visitor, "/rows", written=tokens, layer=1, head=2)[-1]


def test_the_links_are_a_parquet_table(visitor: Visitor) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    tokens = [line["token"] for line in lines(visitor, count=5) if "token" in line]
    wanted = {"written": [token["id"] for token in tokens]}
    for place in ({}, {"layer": 1, "head": 2}):
        content = base64.b64decode(lines(visitor, "/table", **wanted, **place)[-1]["parquet"])
        table = parquet.read_table(BytesIO(content)).to_pylist()
        rows = unpacked(lines(visitor, "/rows", **wanted, **place)[-1]["rows"])
        assert len(table) == sum(token["place"] for token in tokens)  # a row for each token before each written one
        assert [row["token"] for row in table if row["key"] == 0] == list("thous")
        for row in table:
            number = row["place"] - tokens[0]["place"]
            assert row["weight"] == pytest.approx(rows[number][row["key"]], abs=1e-4)
            assert row["probability"] == pytest.approx(tokens[number]["p"], abs=1e-5)


@pytest.mark.parametrize(
    ("path", "wanted", "reason"),
    [
        ("", {"prompt": "  "}, "prompt is empty"),
        ("", {"prompt": "x", "model": "all-MiniLM-L6-v2"}, "does not write"),
        ("", {"chat": True}, "no chat template"),
        ("", {"count": 0}, "cannot be written at once"),
        ("", {"count": 257}, "cannot be written at once"),
        ("", {"written": [51]}, "tokens of another model"),
        ("", {"prompt": "a" * 600}, "takes at most 512"),
        ("", {"prompt": "x", "model": "/nowhere"}, "does not exist"),
        ("", {"typed": "a" * 20_001}, "takes at most"),
        ("/rows", {"written": []}, "nothing is written yet"),
        ("/rows", {"written": [5, 5], "layer": 2}, "no such head"),
        ("/rows", {"written": [5, 5], "layer": 0, "head": 4}, "no such head"),
        ("/rows", {"written": [5, 5], "head": 1}, "belongs to a layer"),
    ],
)
def test_what_cannot_be_written_is_refused_in_a_sentence(
    visitor: Visitor, path: str, wanted: dict[str, Any], reason: str
) -> None:
    found = lines(visitor, path, **wanted)[-1]
    assert reason in found["error"]


def test_without_a_script_the_whole_answer_comes_at_once(visitor: Visitor) -> None:
    page = visitor.get(f"/lens/write?plain=1&prompt={PROMPT}&model=induction&count=5")
    assert '<blockquote class="write-plain">thous</blockquote>' in page
    assert "http-equiv" not in page
    assert page.count('<th scope="row">') == 5
    assert "does not write" in visitor.get("/lens/write?plain=1&prompt=x&model=untrained")


def test_it_stops_at_the_next_token_when_asked_to() -> None:
    sent: list[dict[str, Any]] = []

    def tell(doing: str, done: int, _total: int) -> None:
        if doing == "writing" and done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        write(readings.READINGS, writing_request(PROMPT, "induction", count=9), tell, sent.append)
    assert sum("token" in part for part in sent) == 2


def test_it_stops_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST_SECONDS", -1)
    sent: list[dict[str, Any]] = []
    end = write(readings.READINGS, writing_request(PROMPT, "induction", count=9), lambda *_: None, sent.append)
    assert end == {"end": "time"}
    assert sum("token" in part for part in sent) == 1


def test_a_character_of_several_tokens_gets_its_name_with_its_last() -> None:
    bytes_alone = Tokenizer(BPE({letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}, []))
    bytes_alone.pre_tokenizer, bytes_alone.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_alone)
    loaded: Any = SimpleNamespace(tokenizer=tokenizer)
    ids = tokenizer("a\u65e5b").input_ids
    names = Names(loaded, ids[:1])
    changes = [names.put(place, number) for place, number in enumerate(ids[1:], 1)]
    assert changes[1] == {2: "<0x97>"}
    assert changes[2] == {1: "\u65e5[1/3]", 2: "\u65e5[2/3]", 3: "\u65e5[3/3]"}
    assert changes[3] == {4: "b"}


def test_the_models_are_listed(visitor: Visitor) -> None:
    listed = json.loads(visitor.get("/lens/models"))
    assert {"all-MiniLM-L6-v2", "untrained", "induction"} <= set(listed["names"])
    assert listed["chat"] == {"here": False}


def test_switching_off_every_head_keeps_the_last_logits_alone_and_ends_in_time(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: Any = readings.READINGS.loaded("induction", lambda *_: None)
    shapes: list[Any] = []
    handle = loaded.writer.register_forward_hook(lambda _model, _inputs, output: shapes.append(output.logits.shape))
    try:
        assert "effects" in lines(visitor, "/heads", written=[5, 6])[-1]
    finally:
        handle.remove()
    assert {shape[1] for shape in shapes} == {1}  # of a long text, those of every token take gigabytes
    monkeypatch.setattr(written_heads, "MOST_SECONDS", -1)
    assert "too long to switch off" in lines(visitor, "/heads", written=[5, 6])[-1]["error"]
