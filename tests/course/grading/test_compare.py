"""Typed answers: what means the same is right, what differs is not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearhead.course.grading.compare import same_output, same_result


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("1", "1.0"), ("1.0", "1"), (" 1 ", "1\n"), ("-0.5", "-.5"), ("1e-3", "0.001"), ("inf", "inf"),
        ("nan", "nan"), ("True", "true"), ("[1,2]", "[1, 2]"), ("1 2", "[1, 2]"), ("(2, 3)", "torch.Size([2, 3])"),
        ("2x3", "(2, 3)"), ("2 × 3", "(2, 3)"), ("2, 3", "(2, 3)"), ("[2, 3]", "torch.Size([2, 3])"),
        ("[[1, 2], [3, 4]]", "tensor([[1., 2.],\n        [3., 4.]])"),
        ("tensor([1, 2])", "tensor([1., 2.], dtype=torch.float64)"),
        ("[0.5]", "tensor([0.5000], grad_fn=<AddBackward0>)"),
        ("[]", "tensor([])"), ("hello world", "hello   world"), ("ValueError", "ValueError: bad"),
        ("valueerror: whatever", "ValueError: bad"), ("a RuntimeError", "RuntimeError: shapes differ"), ("Value Error", "ValueError: bad"),
        ("2362368", "2,362,368"), ("2,362,368", "2,362,368"), ("2 362 368 bytes", "2,362,368 bytes"),
        ("[100,200]", "[100, 200]"), ("−0.5", "-0.5"), ("−∞", "-inf"),
        ("must be positive", "ValueError: the scale must be positive"), ("out\nKeyError", "out\nKeyError: 'a'"),
        ("1/4", "0.25"), ("1 / 3", "0.333"), ("25%", "0.25"), ("12.5 %", "0.125"), ("two", "2"), ("head Three", "3"),
        ("2^10", "1024"), ("10**-2", "0.01"), ("[1/2, 1/2]", "[0.5, 0.5]"), ("-1/2", "-0.5"),
        ("0.7311", "0.73"), ("[0.66524, 0.24473, 0.09003]", "[0.665, 0.245, 0.09]"), ("10.00033", "10.0003"),
        ("0.21863", "0.2186"),
    ],
)  # fmt: skip
def test_the_same(typed: str, right: str) -> None:
    assert same_output(typed, right)


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("8", "8 times fewer"), ("1", "key 1"), ("key 1", "1"), ("shape (3,)", "(3,)"), ("3", "has shape (3,)"),
        ("0", "0.0"), ("72, (14, 14)", "72 of (14, 14)"), ("2, True", "output 2.0 · a gradient: True"),
    ],
)  # fmt: skip
def test_words_that_label_a_value_may_be_left_out_or_added(typed: str, right: str) -> None:
    assert same_output(typed, right)


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("0,5", "0.5"), ("-2,5", "-2.5"), ("0,125", "0.125"), ("1,414", "1.414"), ("[0,5; 0,25]", "[0.5, 0.25]"),
        ("0,5 0,25", "[0.5, 0.25]"), ("1,000", "1000"), ("1 000", "1000"), ("1'000", "1000"), ("1\u202f000", "1000"),
        ("‑2", "-2"), ("－2", "-2"), ("minus 2", "-2"), ("minus infinity", "-inf"), ("２", "2"),
        ("½", "0.5"), ("1½", "1.5"), ("1 1/2", "1.5"), ("2³", "8"), ("10⁻²", "0.01"), ("√2", "1.4142"),
        ("sqrt(2)", "1.4142"), ("1/√2", "0.7071"), ("2√2", "2.8284"), ("ln 2", "0.6931"), ("log(2)", "0.6931"),
        ("math.exp(1)", "2.7183"), ("e^2", "7.3891"), ("= 0.5", "0.5"), ("x = 0.5", "0.5"), ("≈ 0.5", "0.5"),
        ("about 0.5", "0.5"), ("0.5.", "0.5"), ("1 2\n3 4", "tensor([[1, 2],\n        [3, 4]])"), ("1 2; 3 4", "[[1, 2], [3, 4]]"),
        ("yes", "True"), ("No", "False"), ("'animal'", "animal"), ("“animal”", "animal"), ("animal.", "animal"),
        ("key1", "key 1"), ("#1", "key 1"), ("key number 1", "key 1"), ("it has shape (3,)", "has shape (3,)"),
        ("2 by 3", "(2, 3)"), ("64 numbers", "64"),
    ],
)  # fmt: skip
def test_a_value_is_the_same_in_every_form_that_people_type(typed: str, right: str) -> None:
    assert same_output(typed, right)
    assert same_result(typed, right)


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("0,5", "5"), ("0,5", "0.05"), ("1,000", "1"), ("1,500", "1"), ("½", "0.2"), ("1 1/2", "0.5"),
        ("2³", "6"), ("23", "8"), ("√2", "2"), ("1/√2", "1.4142"), ("ln 2", "2"), ("e^2", "2"), ("minus 2", "2"),
        ("1 2; 3 4", "[[1, 3], [2, 4]]"), ("1 2 3 4", "[[1, 2], [3, 4]]"), ("no", "True"), ("yes", "False"), ("key2", "key 1"),
        ("about 0.6", "0.5"), ("not 0.5", "0.5"), ("value 1", "key 1"), ("√", "1"), ("√-1", "1"), ("1/√0", "0"),
    ],
)  # fmt: skip
def test_no_other_form_makes_another_value_right(typed: str, right: str) -> None:
    assert not same_output(typed, right)
    assert not same_result(typed, right)


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("2", "1"), ("1.1", "1"), ("", "1"), ("1", ""), ("[2, 1]", "[1, 2]"), ("[1, 2]", "tensor([[1., 2.]])"),
        ("[[1, 2]]", "tensor([1., 2.])"), ("[[1], [2]]", "[[1, 2]]"), ("3x2", "(2, 3)"), ("(2, 3, 1)", "(2, 3)"),
        ("hello", "hello world"), ("TypeError", "ValueError: bad"), ("bad thing", "ValueError: something else"),
        ("2.362.368", "2,362,368"), ("2362,368", "2362.368"), ("0.94", "0.9394"), ("8 times more", "8 times fewer"),
        ("key 2", "key 1"), ("not 3", "3"), ("3 or 4", "3"), ("3, 5", "5 of 3"), ("failed 3", "ok 3"),
        ("1/0", "0"), ("1/4", "0.5"), ("50%", "0.05"), ("three", "2"), ("2^10", "20"), ("0.7361", "0.73"),
        ("0.52", "0.5"), ("3.2", "3"), ("0.21871", "0.2186"), ("2^9999", "1"),
        ("False", "True"), ("error", "ValueError: bad"), ("", "ValueError"), ("-1", "1"), ("nan", "0"),
    ],
)  # fmt: skip
def test_not_the_same(typed: str, right: str) -> None:
    assert not same_output(typed, right)


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("0.9394", "(the row would sum to, 0.9394)"), ("0.94", "0.9394"), ("0.93943", "0.9394"), ("0.50", "0.4996"),
        ("True", "(equal:, True)"), ("[3]", "(rows with nan:, [3])"), ("524288, 512", "524,288 bytes, 512 KiB"),
        ("768, 256", "768 in all, 256 fewer"), ("(16, 5), (5, 3)", "{'q': (16, 5), 'k': (5, 3)}"),
        ("[0.5, 0.88]", "{0: 0.5, 2: 0.8808}"), ("{0: 0.5, 2: 0.88}", "{0: 0.5, 2: 0.8808}"),
        ("768 in all, 256 fewer", "768 in all, 256 fewer"), ("4", "4.00 GiB"), ("1.5 3 −∞", "[1.5, 3, -inf]"),
    ],
)  # fmt: skip
def test_a_result_needs_its_values_alone(typed: str, right: str) -> None:
    assert same_result(typed, right)


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("0.9", "0.9394"), ("0.935", "0.9394"), ("0.95", "0.9394"), ("0", "0.0004"), ("2.004", "2"), ("768", "768, 256"),
        ("256 in all, 768 fewer", "768 in all, 256 fewer"), ("not equal", "(equal:, True)"), ("False", "(equal:, True)"),
        ("the row would sum to", "(the row would sum to, 0.9394)"), ("", "(none)"), ("", "words alone"), ("1, 2", "a b"),
        ("3 MB", "3 GiB"),
    ],
)  # fmt: skip
def test_a_result_needs_all_its_values(typed: str, right: str) -> None:
    assert not same_result(typed, right)


def test_tolerance_and_unit() -> None:
    assert same_output("0.22", "0.2186", tolerance=0.005)
    assert not same_output("0.22", "0.2186", tolerance=0.001)
    assert same_output("[0.2, 0.3]", "tensor([0.21, 0.29])", tolerance=0.0101)
    assert same_output("12 MB", "12", unit="MB")
    assert same_output("12MB", "12", unit="MB")
    assert not same_output("12 GB", "12", unit="MB")


@settings(max_examples=60)
@given(st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=5), st.integers(0, 3))
def test_a_list_equals_itself_however_it_is_spaced(numbers: list[float], spaces: int) -> None:
    typed = ("," + " " * spaces).join(map(repr, numbers))
    assert same_output(f"[{typed}]", repr(numbers))
    assert not same_output(f"[{typed}, 1]", repr(numbers))


@settings(max_examples=60)
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_compared_without_a_crash(typed: str, right: str) -> None:
    assert same_output(typed, right) in (True, False)
    assert same_result(typed, right) in (True, False)
