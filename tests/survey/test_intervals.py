"""Confidence intervals: Student's for means, Wilson's for shares, held to published tables and to SciPy where it is."""

import math

import numpy as np
import pytest

from clearhead.survey.intervals import MOST_EXACT, of_mean, of_share, student

# Of a two-sided 95% interval, by degrees of freedom: any table of Student's t.
TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 10: 2.2281, 15: 2.1314, 30: 2.0423, 60: 2.0003,
         100: 1.9840, 200: 1.9719, 201: 1.9718, 1000: 1.9623}  # fmt: skip


@pytest.mark.parametrize("freedom", TABLE)
def test_quantiles_of_student(freedom: int) -> None:
    assert student(freedom) == pytest.approx(TABLE[freedom], abs=6e-5)


def test_the_series_continues_the_sums() -> None:
    quantiles = [student(freedom) for freedom in range(MOST_EXACT - 2, MOST_EXACT + 4)]
    steps = np.diff(quantiles)
    assert (steps < 0).all()
    assert np.abs(np.diff(steps, 2)).max() < 1e-7


def test_intervals_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed: pip install scipy")
    values = np.random.default_rng(7).gamma(2.0, size=457)
    for count in (2, 3, 17, 64, 199, 202, 457):
        part = values[:count]
        wanted = stats.t.interval(0.95, count - 1, loc=part.mean(), scale=stats.sem(part))
        assert of_mean(part.mean(), part.var(ddof=1), count) == pytest.approx(wanted, rel=1e-8)
    for successes, trials in ((0, 1), (1, 1), (0, 13), (13, 13), (5, 13), (331, 457)):
        wilson = stats.binomtest(successes, trials).proportion_ci(method="wilson")
        assert of_share(successes, trials) == pytest.approx((wilson.low, wilson.high), abs=1e-14)


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)]
)
def test_the_interval_of_a_share_is_wilsons(part: int, whole: int, low: float, high: float) -> None:
    # 81 of 263: Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    assert of_share(part, whole) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize("trials", [1, 7, 400, 20011])
def test_none_and_all_have_exact_ends(trials: int) -> None:
    """Rounding left 1e-18 where nothing was seen, which the page shows as 0.00%."""
    assert of_share(0, trials)[0] == 0.0
    assert of_share(trials, trials)[1] == 1.0


def test_an_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    """Of 20,000 samples of five normal values 95% have the mean inside; with 1.96 standard errors 88% would."""
    samples = np.random.default_rng(11).normal(size=(20_000, 5))
    ends = np.array(
        [of_mean(mean, variance, 5) for mean, variance in zip(samples.mean(1), samples.var(1, ddof=1), strict=True)]
    )
    inside = ((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean()
    assert abs(inside - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 20_000)
