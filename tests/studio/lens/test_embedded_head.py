"""A head of the demo model inside a page: the block that asks for it, and the numbers that come."""

import base64
import json
import tomllib
from urllib.parse import urlencode

import numpy as np
import pytest

from clearhead.studio.lens import demo_model
from clearhead.studio.text import embedded_head, markdown
from studio import sample
from studio.conftest import Visitor

TEXT = "Paris is to France what Rome is to Italy"


def block(**more: object) -> str:
    fields = {"text": TEXT, "layer": 5, "head": 4, "token": "rome", **more}
    return "```lens\n" + "\n".join(f"{name} = {json.dumps(value)}" for name, value in fields.items()) + "\n```\n"


def test_a_block_becomes_a_place_with_a_way_to_the_lens() -> None:
    html = markdown.html(block())
    assert 'data-point="rome"' in html
    assert "/heads.json?text=Paris+is" in html
    assert 'href="/lens?text=Paris+is+to+France+what+Rome+is+to+Italy&amp;layer=5&amp;head=4"' in html


@pytest.mark.parametrize("more", [{"layer": -1}, {"head": "x"}, {"text": ""}, {"colour": 3}, {"text": "x" * 501}])
def test_a_block_that_makes_no_sense_is_shown_as_it_is(more: dict[str, object]) -> None:
    assert "data-source" not in markdown.html(block(**more))


def test_no_word_of_a_pack_becomes_markup() -> None:
    html = markdown.html(block(**{"text": '"><script>alert(1)</script>', "token": '"><b>'}))
    assert "<script>" not in html
    assert "<b>" not in html


@pytest.mark.slow
def test_the_numbers_are_the_models(visitor: Visitor) -> None:
    drawn = json.loads(visitor.get(f"/heads.json?text={TEXT}&layer=5&head=4"))
    assert [layer["heads"] for layer in drawn["layers"]] == [1]
    map_ = drawn["layers"][0]["map"]
    weights = np.frombuffer(base64.b64decode(map_["data"]), dtype="<u2").reshape(map_["shape"])[0] * map_["scale"]
    own = list(demo_model.reading(TEXT).record.values())[5].to_dense()[0, 4].numpy()
    assert np.abs(weights - own).max() < 1e-3


@pytest.mark.parametrize(
    "query", ["text=a&layer=6&head=0", "text=a&layer=0&head=12", f"text={'a ' * 600}&layer=0&head=0"]
)
def test_what_there_is_not_is_refused(visitor: Visitor, query: str) -> None:
    visitor.get(f"/heads.json?{query}", 422)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["Paris isn't Rome", "\x80 Paris is\x15  big", "Łódź 日本 🙂 naïve-ish", "a\u0301b \u200b c"]
)
def test_the_weights_of_words_are_those_of_their_tokens(visitor: Visitor, text: str) -> None:
    reading = demo_model.reading(text)
    weights = list(reading.record.values())[5].to_dense()[0, 4]
    ends, starts = np.cumsum([len(piece) for piece in reading.pieces or []]), [0]
    for word in text.split():
        starts.append(text.index(word, starts[-1]) + len(word))
    for place, word in enumerate(text.split()):
        mine = [
            at for at, end in enumerate(ends) if starts[place] < end <= starts[place + 1] and not reading.special[at]
        ]
        address = f"/look.json?{urlencode({'text': text, 'token': word, 'layer': 5, 'head': 4})}"
        if not mine:
            assert "The model has no token for" in visitor.get(address, 422)
            continue
        looked = json.loads(visitor.get(address))
        assert looked["at"] == place
        assert looked["weights"][place] == pytest.approx(weights[mine[0], mine].sum().item(), abs=1e-6)


@pytest.mark.parametrize("text", ["\x80\x83\x15", "\u200b"])
def test_a_text_of_which_the_model_reads_nothing_is_refused(visitor: Visitor, text: str) -> None:
    query = urlencode({"text": text, "token": text, "layer": 0, "head": 0})
    assert "The model has no token for" in visitor.get(f"/look.json?{query}", 422)


@pytest.mark.slow
def test_every_block_of_the_course_can_be_drawn() -> None:
    pack = sample.shipped_course()
    count = 0
    for topic in pack.topics:
        for page in topic.pages.values():
            for source in page.text.split("```lens\n")[1:]:
                shown = embedded_head.EmbeddedHead.model_validate(tomllib.loads(source.partition("```")[0]))
                reading = demo_model.reading(shown.text)
                assert not shown.token or shown.token in reading.tokens, (page.file, shown)
                assert shown.head < list(reading.record.values())[shown.layer].shape[1]
                count += 1
    assert count >= 7
