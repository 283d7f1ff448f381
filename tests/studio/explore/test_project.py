"""The project: a head's story is tested by a prediction; the certificate lists what was proved."""

import re
from types import SimpleNamespace

import pytest
import torch

from clearhead.studio.explore import project
from clearhead.studio.learn import certificate
from clearhead.studio.lens import demo_model
from studio.conftest import Visitor
from studio.learn.test_pages import answer


def reading(text: str) -> SimpleNamespace:
    """Two layers of three heads, in which each token looks at the one before it; head 2 at the last one."""
    tokens = ["[CLS]", *text.lower().split(), "[SEP]"]
    weights = torch.full((1, 3, len(tokens), len(tokens)), 0.1)
    for place in range(len(tokens)):
        weights[0, :2, place, max(0, place - 1)] = 0.75
        weights[0, 2, place, -1] = 0.875
    return SimpleNamespace(tokens=tokens, record={n: SimpleNamespace(to_dense=lambda: weights) for n in range(2)})


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_model, "reading", reading)


FORM = {"text": "a cat sat", "changed": "a dog sat", "token": "sat", "layer": "1", "head": "0"}


def told(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_a_prediction_that_comes_true_is_on_the_certificate(visitor: Visitor) -> None:
    page = told(visitor.post("/project", **FORM, predicted="Dog", story="It looks one back."))
    assert "As you said" in page
    assert "a cat sat cat 0.750 a dog sat dog 0.750" in page
    assert "The head moved" in page
    proved = told(visitor.get("/certificate"))
    assert "layer 1, head 0: in “a dog sat”, “sat” looks most at “dog” (0.75)" in proved
    assert "It looks one back." in proved


def test_a_prediction_that_fails_is_reported_and_is_not_proof(visitor: Visitor) -> None:
    page = told(visitor.post("/project", **FORM, predicted="cat"))
    assert "Not as you said" in page
    assert "looks most at" not in told(visitor.get("/certificate"))
    assert "1 of your last 2 predictions" in told(visitor.post("/project", **FORM, predicted="dog"))


def test_a_head_that_stays_is_reported_as_such(visitor: Visitor) -> None:
    page = told(visitor.post("/project", **{**FORM, "head": "2"}, predicted="[SEP]"))
    assert "The head did not move" in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"token": "bird"}, "Its tokens are: [CLS], a, cat, sat, [SEP]"),
        ({"layer": "2"}, "the layer as a number from 0 to 1"),
        ({"head": "3"}, "the head as a number from 0 to 2"),
        ({"head": "-1"}, "the head as a number from 0 to 2"),
        ({"head": "²"}, "the head as a number from 0 to 2"),
        ({"layer": "9" * 5000}, "the layer as a number from 0 to 1"),
        ({"changed": "a cat sat"}, "The two texts are the same"),
        ({"predicted": " "}, "Say first what it will look at"),
        ({"text": " "}, "Fill in the text"),
        ({"changed": "a " * 300}, "Shorten the changed text"),
    ],
)
def test_a_form_that_lacks_something_says_what_and_keeps_the_rest(
    visitor: Visitor, change: dict[str, str], said: str
) -> None:
    page = visitor.post("/project", **{**FORM, "predicted": "dog", "story": "Mine.", **change})
    assert said in told(page).replace("&#39;", "'")
    assert "Mine." in page
    assert not visitor.context.store.kept(certificate.STORY)


def test_the_page_is_in_the_open_and_says_what_comes_first(visitor: Visitor) -> None:
    answer(visitor, visitor.get("/items/scale-of-logits"), "4.0")
    assert 'href="/project"' in visitor.get("/")
    assert 'href="/project"' in visitor.get("/map")
    page = visitor.get("/project")
    assert project.BEFORE in page.replace("&#39;", "'")
    assert "opens once your class passes" in page


def test_an_empty_certificate_says_so_and_a_right_answer_is_counted(visitor: Visitor) -> None:
    assert "Nothing yet" in visitor.get("/certificate")
    answer(visitor, visitor.get("/items/scale-of-logits"), "16.0")
    assert "Nothing yet" in visitor.get("/certificate"), "a wrong answer proves nothing"
    visitor.later(days=1)
    answer(visitor, visitor.get("/items/scale-of-logits"), "4.0")
    page = told(visitor.get("/certificate"))
    assert "One head, step by step 1 of 5" in page
    visitor.context.store.keep("passed:attention/one-head", "2026-03-04")
    assert "2026-03-04" in visitor.get("/certificate")
