"""Moments merged part by part are those of all texts at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead.survey.measuring.moments import EXAMPLES, SHORTEST_EXAMPLE, Moments

HEADS = 5


def table(texts: int, seed: int = 0) -> np.ndarray:
    make = np.random.default_rng(seed)
    values = make.random((texts, HEADS))
    values[make.random(values.shape) < 0.2] = np.nan
    values[:, 3] = np.nan  # a head without any value
    values[make.random(texts) < 0.3, 1] = 0.5  # equal ones
    return values


def of(values: np.ndarray, first: int = 0) -> Moments:
    numbers = np.arange(first, first + len(values))
    return Moments.of(values, numbers, 6 + numbers % 5, 0.5, bounded=True)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=7), st.integers(0, 99))
def test_merged_parts_are_the_whole(sizes: list[int], seed: int) -> None:
    values = table(sum(sizes), seed)
    whole, merged, first = of(values), None, 0
    for size in sizes:
        part = of(values[first : first + size], first)
        merged = part if merged is None else merged.merged(part)
        first += size
    for name in ("count", "above", "histogram", "example_texts"):
        assert getattr(merged, name).tolist() == getattr(whole, name).tolist(), name
    for name in ("mean", "squares", "least", "most", "example_values"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-12, atol=1e-14, err_msg=name)


def test_the_whole_is_what_numpy_says() -> None:
    values = table(83)
    made = of(values)
    for head in (0, 1, 2, 4):
        known = values[~np.isnan(values[:, head]), head]
        assert made.count[head] == len(known)
        assert made.mean[head] == pytest.approx(known.mean(), rel=1e-14)
        assert made.squares[head] / (len(known) - 1) == pytest.approx(known.var(ddof=1), rel=1e-12)
        assert (made.least[head], made.most[head]) == (known.min(), known.max())
        assert made.above[head] == (known >= 0.5).sum()
        assert made.histogram[head].tolist() == np.histogram(known, bins=20, range=(0, 1))[0].tolist()
    assert made.count[3] == 0
    assert np.isnan(made.most[3])


def test_examples_are_the_largest_of_texts_that_are_long_enough() -> None:
    values = np.array([[0.9], [0.8], [0.8], [0.1], [0.7]])
    lengths = np.array([SHORTEST_EXAMPLE - 1, 8, 9, 10, 11])
    made = Moments.of(values, np.arange(10, 15), lengths, None, bounded=True)
    assert made.example_texts.tolist() == [[11, 12, 14]]  # of equal ones the first
    assert made.example_values.tolist() == [[0.8, 0.8, 0.7]]
    few = Moments.of(values[:1], np.arange(1), np.array([50]), None, bounded=True)
    assert few.example_texts.tolist() == [[0] + [-1] * (EXAMPLES - 1)]
    assert few.above.tolist() == [0]
