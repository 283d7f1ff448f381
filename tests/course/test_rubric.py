"""Free text against a rubric: stems, typing errors, order, negation, keyword dumps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearhead.course import Criterion
from clearhead.course.rubric import ticks

SCALE = Criterion("scale", "why", (("logits", "dot products"), ("divided", "scaled"), ("square root", "sqrt")))
ORDER = Criterion("order", "when", (("mask",), ("softmax",)), ordered=True)
NOT = Criterion("not", "no", (("softmax",),), without=("after the softmax",))


@pytest.mark.parametrize(
    "text",
    [
        "The logits are divided by the square root of the width.",
        "Dividing a dot product by the sqrt of its width is what the scale does.",
        "We divide each logit by the square-root of d.",
        "What happens is that the logits are scalled down, by the squaare root.",
        "It is not a detail: the dot products of a head are divided by the square root of its width.",
    ],
)
def test_met(text: str) -> None:
    (tick,) = ticks(text, [SCALE])
    assert tick.met, tick.why
    assert all(0 <= start < end <= len(text) for start, end in tick.evidence)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("The logits are multiplied by the square root of the width.", "nothing like"),
        ("The logits are not divided by the square root of it.", "denied"),
        ("The logits aren't scaled by the square root.", "denied"),
        ("logits divided square root", "keywords alone"),
        ("logits, dot products, divided, scaled, square root, sqrt, softmax, width", "keywords alone"),
        ("", "nothing like"),
        ("The square. The root. The logits are divided by it.", "nothing like"),
    ],
)
def test_not_met(text: str, why: str) -> None:
    (tick,) = ticks(text, [SCALE])
    assert not tick.met
    assert why in tick.why


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("Q is what a token asks with.", ("query",)),
        ("Multiply x by W_Q, then by W_O.", ("matrix", "query", "output matrix")),
        ("The softmax of QK^T is taken.", ("query", "keys", "dot product")),
        ("The variance of q·k is d_k.", ("query", "key", "dot product", "width")),
        ("We keep the running max, and the matrix is never materialised.", ("maximum", "never stored")),
        ("There is a layernorm before the FFN.", ("norm", "MLP")),
    ],
)
def test_symbols_count_as_their_words(text: str, phrases: tuple[str, ...]) -> None:
    for phrase in phrases:
        assert ticks(text, [Criterion("one", "", ((phrase,),))])[0].met, phrase
    assert not ticks(text, [Criterion("one", "", (("residual",),))])[0].met


def test_a_negation_ends_with_its_clause() -> None:
    keeps = Criterion("keeps", "", (("store", "stored"),))
    assert ticks("The old keys do not change, so you store them.", [keeps])[0].met
    assert not ticks("We do not, in this case, store them.", [keeps])[0].met
    assert not ticks("It does not read, compute or store them.", [keeps])[0].met


def test_two_denials_cancel() -> None:
    text = "It is never the case that the logits are not divided by the square root."
    assert [tick.met for tick in ticks(text, [SCALE])] == [False]  # "never" is too far off to cancel "not"
    assert [tick.met for tick in ticks("One cannot not divide the logits by the square root.", [SCALE])] == [True]


def test_order_and_without() -> None:
    assert ticks("The mask comes first and the softmax is taken of what it left.", [ORDER])[0].met
    late = ticks("The softmax comes first and then the mask is laid on it.", [ORDER])[0]
    assert (late.met, "too early" in late.why) == (False, True)
    assert not ticks("We mask after the softmax.", [NOT])[0].met
    assert ticks("We do not mask after the softmax, but before the softmax.", [NOT])[0].met


@settings(max_examples=60)
@given(st.text(max_size=200))
def test_any_text_is_read_without_a_crash(text: str) -> None:
    for tick in ticks(text, [SCALE, ORDER, NOT]):
        assert tick.met or tick.why
