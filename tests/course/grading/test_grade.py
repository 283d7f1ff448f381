"""Every kind graded: right, wrong with its misconception's own counterexample, and a response of the wrong form."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from clearhead import course, sandbox
from clearhead.course import Item, Pack, Proved, Verdict, grade
from clearhead.course.grading.programs import breaks_at
from clearhead.errors import OptionError

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"no confinement here: {sandbox.explain()}")
GOOD = Path(__file__).parents[2] / "packs" / "good"
Shelf = tuple[Pack, Mapping[str, Proved]]


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    pack = course.load(GOOD)
    return pack, {one.item_id: one.proved for one in course.prove_pack(pack) if one.proved}


def graded(shelf: Shelf, name: str, response: object) -> Verdict:
    pack, proved = shelf
    return grade(pack.items[name], proved[name], response, pack)


def key(shelf: Shelf, name: str, misconception: str | None) -> str:
    return next(one.key for one in shelf[1][name].options if one.misconception == misconception)


def test_predict_by_key(shelf: Shelf) -> None:
    assert graded(shelf, "predict-range", key(shelf, "predict-range", None)).correct
    verdict = graded(shelf, "predict-range", key(shelf, "predict-range", "off-by-one"))
    assert not verdict.correct
    assert verdict.why == "range(n) ends with n."
    assert "-print(list(range(n))[-1])\n+print(list(range(n + 1))[-1])" in verdict.counterexample
    assert verdict.rationale == "The end of a range is not in it."
    assert verdict.rule == "range(n) has n numbers and ends before n."
    assert verdict.right != verdict.chosen.output if verdict.chosen else False


def test_predict_typed(shelf: Shelf) -> None:
    right = shelf[1]["predict-range"].answer
    assert graded(shelf, "predict-range", f" {right} \n").correct
    near = graded(shelf, "predict-range", str(int(right) + 1))
    assert near.chosen is not None
    assert near.chosen.misconception == "off-by-one"
    other = graded(shelf, "predict-range", "1234")
    assert (other.correct, other.chosen) == (False, None)
    assert other.why


def test_predict_an_exception(shelf: Shelf) -> None:
    for typed in ("IndexError", "IndexError: list index out of range", "the list index is out of range"):
        assert graded(shelf, "predict-error", typed).correct
    for typed in ("KeyError", "an error", "20"):
        assert not graded(shelf, "predict-error", typed).correct


def test_choice_with_two_right(shelf: Shelf) -> None:
    right = [one.key for one in shelf[1]["choice-even"].options if one.correct]
    assert graded(shelf, "choice-even", right).correct
    assert graded(shelf, "choice-even", right[::-1]).correct
    half = graded(shelf, "choice-even", right[:1])
    assert not half.correct
    assert half.why.endswith("Right options not chosen: 1.")
    wrong = graded(shelf, "choice-even", [*right, key(shelf, "choice-even", "adds-instead")])
    assert wrong.counterexample == "3 * 3 leaves 1"
    assert wrong.rationale == "Three threes leave 1 when halved."


def test_debug_by_patch_and_by_program(shelf: Shelf) -> None:
    assert graded(shelf, "debug-mean", key(shelf, "debug-mean", None)).correct
    verdict = graded(shelf, "debug-mean", key(shelf, "debug-mean", "ignores-scale"))
    assert "mean([2, 2]) is 4" in verdict.counterexample
    assert graded(shelf, "debug-mean", "def mean(xs):\n    return sum(xs) / len(xs)\n").correct
    written = graded(shelf, "debug-mean", "def mean(xs):\n    return 7\n")
    assert not written.correct
    assert "mean([2, 2]) is 7" in written.counterexample


def test_tune(shelf: Shelf) -> None:
    assert graded(shelf, "tune-step", "1.0").correct
    verdict = graded(shelf, "tune-step", key(shelf, "tune-step", "largest-is-best"))
    assert "| 2.5 | 60.75 |" in verdict.counterexample


def test_worked(shelf: Shelf) -> None:
    assert graded(shelf, "worked-square", {"1": "25", "2": "5.004"}).correct
    assert graded(shelf, "worked-square", {"2": "5"}).correct
    verdict = graded(shelf, "worked-square", {"1": "25", "2": "5.1"})
    assert verdict.why == "Step 2 gives 5."


def test_code(shelf: Shelf) -> None:
    solution = shelf[1]["code-mean"].solution
    assert graded(shelf, "code-mean", solution + "# another way to say it\n").correct
    known = graded(shelf, "code-mean", "def mean(values):\n    n = len(values)\n    return sum(values) / n\n")
    assert known.chosen is not None
    assert known.chosen.misconception == "forgets-empty"
    assert known.rationale == "A list may be empty."
    other = graded(shelf, "code-mean", "def mean(xs): return 3")
    assert other.chosen is None
    assert [passed for _, passed, _ in other.tests] == [True, False]


def test_order(shelf: Shelf) -> None:
    proved = shelf[1]["order-swap"]
    assert len(proved.orders) == 1
    assert graded(shelf, "order-swap", list(proved.orders[0])).correct
    wrong = graded(shelf, "order-swap", list(reversed(proved.orders[0])))
    assert not wrong.correct
    assert "NameError" in wrong.why
    assert wrong.why.startswith("Step 1 is the first that does not fit here: `")
    right = proved.orders[0]
    late = graded(shelf, "order-swap", [*right[:-2], right[-1], right[-2]])
    assert late.why.startswith(f"Step {len(right) - 1} is the first that does not fit here")


@pytest.mark.parametrize(
    ("keys", "orders", "place"),
    [("acb", ["abc"], 2), ("acb", ["abc", "acd"], 3), ("cab", ["abc", "bac"], 1), ("abdc", ["bacd", "abcd"], 3)],
)
def test_an_order_breaks_at_the_first_step_with_which_no_right_one_begins(
    keys: str, orders: list[str], place: int
) -> None:
    assert breaks_at(keys, orders) == place


def test_match(shelf: Shelf) -> None:
    right = {step.key: step.right for step in shelf[1]["match-types"].steps}
    assert graded(shelf, "match-types", right).correct
    keys = list(right)
    swapped = {**right, keys[0]: right[keys[1]], keys[1]: right[keys[0]]}
    assert graded(shelf, "match-types", swapped).why == "1 of 3 are right. `1 / 1` goes with float."


def test_free_text_suggests_and_the_learner_confirms(shelf: Shelf) -> None:
    good = "The mean depends on every value, which a big one shifts. The median is only the middle one of them."
    verdict = graded(shelf, "explain-mean", good)
    assert (verdict.correct, verdict.suggested) == (True, True)
    spans = [good[start:end] for tick in verdict.ticks for start, end in tick.evidence]
    assert spans == ["mean", "depends on every", "median", "middle"]
    denied = graded(
        shelf, "explain-mean", "The mean does not add up all of it. The median is in the middle of the list."
    )
    assert [tick.met for tick in denied.ticks] == [False, True]
    assert "denied" in denied.ticks[0].why
    confirmed = graded(shelf, "explain-mean", {"text": "words", "ticks": {"sum": True, "place": True}})
    assert (confirmed.correct, confirmed.suggested) == (True, False)


def test_card(shelf: Shelf) -> None:
    assert graded(shelf, "card-sum", "good").correct
    assert not graded(shelf, "card-sum", "again").correct


@pytest.mark.parametrize(
    ("name", "response"),
    [
        ("card-sum", "maybe"), ("choice-even", "z"), ("choice-even", []), ("choice-even", None), ("choice-even", 3),
        ("worked-square", {}), ("worked-square", {"9": "1"}), ("worked-square", "25"), ("code-mean", ""),
        ("code-mean", None), ("order-swap", ["a"]), ("order-swap", "abc"), ("match-types", {"1": "a"}),
        ("explain-mean", ""), ("explain-mean", {"ticks": {}}),
    ],
)  # fmt: skip
def test_a_response_of_the_wrong_form(shelf: Shelf, name: str, response: object) -> None:
    with pytest.raises(OptionError):
        graded(shelf, name, response)


def test_options_say_nothing_by_their_place(shelf: Shelf) -> None:
    """Keys go by hash: not by the author's order, in which the right one came first."""
    places = [key(shelf, name, None) for name in ("predict-range", "predict-error", "debug-mean", "tune-step")]
    assert len(set(places)) > 1


def test_every_wrong_option_says_why(shelf: Shelf) -> None:
    for proved in shelf[1].values():
        for option in proved.options:
            if option.misconception:
                assert option.belief
                assert option.counterexample
                assert option.rationale
                assert "{{" not in option.rationale


def test_proved_survives_json(shelf: Shelf) -> None:
    import json

    for proved in shelf[1].values():
        assert Proved.from_json(json.loads(json.dumps(proved.to_json()))) == proved


def test_a_variant_has_other_numbers(shelf: Shelf) -> None:
    pack, proved = shelf
    item: Item = pack.items["predict-range"]
    other = course.prove(item, pack, seed=11)
    assert (other.receipt.seed, proved["predict-range"].receipt.seed) == (11, 3)
    assert other.answer != proved["predict-range"].answer
    assert other.values["n"] in other.stem
    assert grade(item, other, other.answer).correct
