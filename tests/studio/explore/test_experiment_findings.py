"""The sentences of an experiment follow from its numbers: other numbers give other sentences."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearhead import sandbox
from clearhead.course.pack import front_matter
from clearhead.studio.explore.experiments.findings import FINDINGS, Column
from clearhead.studio.explore.experiments.line_chart import short_number
from clearhead.studio.explore.experiments.programs import EXPERIMENTS, SEEDS, Experiment
from clearhead.studio.explore.experiments.routes import measure
from clearhead.studio.explore.experiments.samples import Change, SampleRange, Samples

# Experiment -> its sentences by how they begin, what each compares (point -1 with point 0 of one key, or two keys at
# the last point), and the relative difference that counts as none.
ENDS: Mapping[str, Sequence[tuple[str, str, float]]] = {
    "heads": [("Parameters", "parameters", 0), ("Time", "milliseconds", 0.1), ("A row's entropy", "entropy", 0.02)],
    "scale": [
        ("Without 1/√D the largest", "largest_plain", 0.02),
        ("Without 1/√D the gradient", "gradient_plain", 0.02),
        ("With 1/√D the largest", "largest_scaled", 0.02),
        ("With 1/√D the gradient", "gradient_scaled", 0.02),
    ],
    "length": [
        ("Attention's own", "attention", 0.02),
        ("Time", "milliseconds", 0.1),
        ("At the longest text", "recurrent attention", 0.02),
    ],
    "hard": [
        ("entropy", "entropy", 0.02),
        ("The distance", "distance", 0.02),
        ("The gradient", "gradient", 0.02),
    ],
    "window": [("share of the weight", "lost", 0.02), ("The output's", "distance", 0.02), ("Pairs", "pairs", 0)],
    "positions": [("a vector for each position", "table", 0.02), ("With rotation", "rotary", 0.02)],
    "cache": [("Memory", "megabytes", 0), ("Time", "milliseconds", 0.1)],
    "dropout": [
        ("On average", "mean", 0.02),
        ("spread of the sum", "spread", 0.02),
        ("The output's", "distance", 0.02),
    ],
    "dots": [
        ("The size of the cosine", "cosine", 0.02),
        ("The spread of the plain", "spread", 0.02),
        ("The spread after", "scaled", 0.05),
    ],
    "source": [
        ("The number of output rows", "rows", 0),
        ("The number of logits", "logits", 0),
        ("The largest weight", "largest", 0.02),
    ],
    "turns": [("The logit of two", "logit", 0.02), ("The share of slow", "slow", 0.02)],
    "influence": [("largest weight names", "weight", 0.02), ("size of the value names", "sized", 0.02)],
    "asked": [
        ("the time with the weights", "without with_weights", 0.1),
        ("The memory", "megabytes", 0),
        ("The largest difference", "difference", 0.02),
    ],
    "depth": [
        ("The gradient through attention", "bare_gradient", 0.02),
        ("The gradient through blocks", "block_gradient", 0.02),
        ("the distance of two tokens", "block bare", 0.02),
    ],
    "blocks": [
        ("The number of logits", "held", 0),
        ("The number of moves", "moves", 0.02),
        ("The largest error", "error", 0.02),
    ],
    "memory": [
        ("The share that the matrix", "matrix", 0.02),
        ("The share that softmax", "softmax", 0.02),
        ("What softmax", "softmax_size", 0),
    ],
    "layers": [
        ("The number of keys", "breadth", 0.02),
        ("The weight on", "special", 0.02),
        ("The mean distance", "distance", 0.02),
    ],
    "copying": [
        ("with all heads,", "all", 0.02),
        ("with this head off", "all without", 0.02),
        ("the loss in the repetition", "before all", 0.02),
    ],
}
LOADS_A_MODEL = {"layers", "copying"}  # at each point, for seconds
UP, DOWN, SAME = r"\b(rises?|larger|wider)\b", r"\b(falls?|smaller|less wide)\b", r"\b(unchanged|the same|whatever)\b"


def numbers(**columns: Sequence[Samples]) -> Column:
    return lambda key: columns[key]


def words_of(sentence: str) -> str:
    """The sentence up to the reason it gives: a direction word in the reason is about something else."""
    return re.split(r"(?:: (?=every|cold|a choice|one step|in this)|\. (?=In|The same|Hard))", sentence)[0]


def check(name: str, column: Column) -> None:
    """Hold every sentence to the numbers it is about."""
    said = FINDINGS[name].sentences(column)
    for start, keys, tolerance in ENDS[name]:
        (sentence,) = [one for one in said if start in one]
        one, other = [*keys.split(), keys][:2]
        first, last = (column(one)[-1], column(other)[-1]) if one != other else (column(one)[0], column(one)[-1])
        text = words_of(sentence)
        pairs = list(zip(first, last, strict=True))
        if "disagree" in sentence or "no clear" in sentence:
            assert not all(b > a * (1 + tolerance) for a, b in pairs), sentence
            assert not all(b < a * (1 - tolerance) for a, b in pairs), sentence
        elif re.search(SAME, text):
            alike = SampleRange.of(first).text == SampleRange.of(last).text
            assert alike or all(abs(b - a) <= tolerance * abs(a) * 1.0001 for a, b in pairs), sentence
        else:  # "from 4.04 to 4.04: wider" is impossible
            rises = bool(re.search(UP, text))
            assert rises or re.search(DOWN, text), sentence
            assert all((b > a) if rises else (b < a) for a, b in pairs), sentence
            assert SampleRange.of(first).text != SampleRange.of(last).text, sentence
    for sentence in said:
        if "hardly anything can be learned" in sentence:
            plain = column("gradient_plain")
            assert all(b < 0.01 * a for a, b in zip(plain[0], plain[-1], strict=True)), sentence


def test_every_experiment_has_a_guess_and_a_finding() -> None:
    assert set(FINDINGS) == set(EXPERIMENTS) == set(ENDS) == set(get_args(front_matter.Experiment))


def samples(low: float, high: float) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(low, high), min_size=5, max_size=5)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
@given(data=st.data())
@settings(max_examples=25)
def test_words_agree_with_any_numbers(name: str, data: st.DataObject) -> None:
    check_any_numbers(name, data)


@pytest.mark.stress
@pytest.mark.parametrize("name", EXPERIMENTS)
@given(data=st.data())
@settings(max_examples=500)
def test_words_agree_with_many_numbers(name: str, data: st.DataObject) -> None:
    check_any_numbers(name, data)


def check_any_numbers(name: str, data: st.DataObject) -> None:
    """Draw two points of every column, near and far from each other, and hold the sentences to them."""
    columns: dict[str, Any] = {"x": [[2.0], [8.0]]}
    for key in EXPERIMENTS[name].columns:
        first = data.draw(samples(1e-3, 3.0))
        factor = data.draw(st.sampled_from([1e-9, 0.005, 0.18, 0.5, 0.98, 1.0, 1.001, 1.05, 2.0, 400.0]))
        jitter = data.draw(st.sampled_from([0.0, 0.01, 0.2]))
        apart = data.draw(samples(-1.0, 1.0))
        columns[key] = [first, [a * factor * (1 + jitter * b) for a, b in zip(first, apart, strict=True)]]
    check(name, numbers(**columns))


def every_setting(experiment: Experiment) -> list[dict[str, int]]:
    names = [setting.name for setting in experiment.settings]
    return [dict(zip(names, one, strict=True)) for one in itertools.product(*(s.values for s in experiment.settings))]


def measured(experiment: Experiment, chosen: dict[str, int]) -> Column:
    rows = list(measure(experiment, chosen))
    assert len(rows) == len(experiment.points)
    assert all(len(row.samples[key]) == len(SEEDS) for row in rows for key in experiment.columns)
    return lambda key: [[row.x] if key == "x" else row.samples[key] for row in rows]


NO_SANDBOX = pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be run here: {sandbox.explain()}")


@pytest.mark.slow
@NO_SANDBOX
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.stress if name in LOADS_A_MODEL else ()) for name in EXPERIMENTS]
)
def test_words_agree_with_what_is_measured_at_the_smallest_setting(name: str) -> None:
    check(name, measured(EXPERIMENTS[name], every_setting(EXPERIMENTS[name])[0]))


@pytest.mark.stress
@NO_SANDBOX
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_words_agree_with_what_is_measured_at_every_setting(name: str) -> None:
    for chosen in every_setting(EXPERIMENTS[name]):
        check(name, measured(EXPERIMENTS[name], chosen))


def test_an_entropy_that_stays_is_not_called_wider() -> None:
    column = numbers(parameters=[[9]] * 2, milliseconds=[[1.0], [1.05]], entropy=[[4.04], [4.041]])
    parameters, time, entropy = FINDINGS["heads"].sentences(column)
    assert "whatever the number of heads" in parameters
    assert time.startswith("Time: unchanged")
    assert "unchanged: 4.04 nats with one head, 4.04 with the most" in entropy


def test_a_factor_comes_with_its_range() -> None:
    assert Change.between([1.0, 1.0, 1.0], [1.8, 2.0, 2.3]).multiple == "about twice (1.8 to 2.3)"
    assert Change.between([2.0], [1.0]).multiple == "about half"
    assert Change.between([0.0], [1.0]).multiple == "infinitely many times"
    assert Change.between([0.0], [0.0]).direction == "same"
    assert Change.between([1.0, 1.0], [0.5, 1.5]).direction == "unclear"
    assert SampleRange.of([4.04, 4.041]).text == short_number(4.04)


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.18, "learning goes on through it"), (0.005, "hardly anything can be learned"), (1.5, "")],
)
def test_what_a_fallen_gradient_means_depends_on_what_is_left(share: float, words: str) -> None:
    column = numbers(
        gradient_plain=[[1.0], [share]], gradient_scaled=[[1.0], [1.0]],
        largest_plain=[[0.5], [0.99]], largest_scaled=[[0.5], [0.5]],
    )  # fmt: skip
    said = " ".join(FINDINGS["scale"].sentences(column))
    assert words in said
    assert ("softmax" in said) == bool(words)


@pytest.mark.parametrize(("last", "right"), [(9.0, 0), (10.0, 1), (11.0, 2)])
def test_the_guess_is_judged_by_the_numbers(last: float, right: int) -> None:
    assert FINDINGS["heads"].guess.right(numbers(parameters=[[10.0], [last]])) == right
    assert FINDINGS["hard"].guess.right(numbers(gradient=[[last], [10.0]])) == right


def test_the_guess_about_ranges_is_judged_by_the_middle_seed() -> None:
    assert FINDINGS["scale"].guess.right(numbers(gradient_plain=[[1.0] * 3, [0.4, 0.45, 0.7]])) == 0
    assert FINDINGS["length"].guess.right(numbers(recurrent=[[1.0], [1e-9]], attention=[[1.0], [0.1]])) == 0
    assert FINDINGS["length"].guess.right(numbers(recurrent=[[1.0], [0.2]], attention=[[1.0], [0.1]])) == 2


@pytest.mark.parametrize("exponent", range(-12, 13))
@pytest.mark.parametrize("digits", [1.0, 1.234567, 9.9999, -2.5])
def test_no_number_is_printed_as_a_program_would(digits: float, exponent: int) -> None:
    written = short_number(digits * 10.0**exponent)
    assert "e" not in written
    assert len(written) <= 19 if exponent >= 7 else len(written) <= 10


@pytest.mark.parametrize(
    ("first", "last"), [([4.04] * 3, [4.041] * 3), ([1.0] * 3, [1.001] * 3), ([0.0] * 3, [0.0] * 3)]
)
def test_what_is_written_alike_is_called_unchanged(first: list[float], last: list[float]) -> None:
    assert Change.between(first, last, same=0.0).direction == "same"


def test_a_count_that_grows_by_one_is_not_called_unchanged() -> None:
    assert Change.between([66048] * 3, [66049] * 3, same=0.0).direction == "rises"


def test_seeds_that_disagree_are_not_called_unchanged() -> None:
    assert Change.between([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]).direction == "unclear"
