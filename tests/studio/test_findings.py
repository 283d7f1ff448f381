"""What an experiment says follows from its numbers: other numbers, other words."""

from collections.abc import Sequence

import pytest

from clearhead.studio.experiments import EXPERIMENTS
from clearhead.studio.findings import FINDINGS, Column


def numbers(**columns: Sequence[float]) -> Column:
    return lambda key: columns[key]


def test_every_experiment_has_a_guess_and_a_finding() -> None:
    assert set(FINDINGS) == set(EXPERIMENTS)
    for name, finding in FINDINGS.items():
        column = numbers(**dict.fromkeys(EXPERIMENTS[name].columns, (1.0, 2.0, 3.0)))
        assert all(finding.said(column))
        assert 0 <= finding.guess.right(column) < len(finding.guess.answers)


@pytest.mark.parametrize(("last", "right"), [(9.0, 0), (10.0, 1), (11.0, 2)])
def test_the_parameters_are_compared_not_assumed(last: float, right: int) -> None:
    column = numbers(parameters=(10.0, last), milliseconds=(1.0, 4.0), entropy=(2.0, 3.0))
    assert FINDINGS["heads"].guess.right(column) == right
    said = " ".join(FINDINGS["heads"].said(column))
    assert ("whatever the number of heads" in said) == (last == 10)
    assert "4 times as much" in said


@pytest.mark.parametrize(("gradient", "right"), [((1.0, 0.1), 0), ((1.0, 1.2), 1), ((1.0, 3.0), 2)])
def test_the_gradient_without_the_scale(gradient: tuple[float, float], right: int) -> None:
    column = numbers(
        gradient_plain=gradient, gradient_scaled=(1.0, 1.0), largest_plain=(0.5, 0.99), largest_scaled=(0.5, 0.6)
    )
    assert FINDINGS["scale"].guess.right(column) == right
    assert "0.99" in FINDINGS["scale"].said(column)[0]


def test_reach_and_choice() -> None:
    column = numbers(recurrent=(1.0, 1e-9), attention=(1.0, 0.1), milliseconds=(1.0, 2.0), megabytes=(0.1, 1.0))
    assert FINDINGS["length"].guess.right(column) == 0
    column = numbers(entropy=(0.1, 2.0), distance=(0.0, 1.0), gradient=(1e-6, 0.4))
    assert FINDINGS["hard"].guess.right(column) == 0
