"""Output and dense weights in one native pass, compared with the float64 reference on every kind of problem."""

import pytest
import torch

from clearhead import kernels

from ..cases import CASES
from ..oracle import exact, exact_weights
from ..rounding import assert_within, logit_unit
from ..targets import HERE, needs_native

pytestmark = [needs_native, pytest.mark.pairwise(name=CASES)]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
UNITS = 2.0  # of rounding.logit_unit, over twice the worst case measured here, 0.82
NAMES = [name for name, case in CASES.items() if case.dropout_p == 0 and case.batch and case.length and case.keys]


def check(actual, truth, problem, rounding=0.0, label=""):
    """Assert that the error is at most UNITS, and the rounding to the result's own dtype."""
    assert_within(actual, truth, UNITS * logit_unit(problem) + rounding, 1.0, label)


def rounded(dtype):
    """Return the error of rounding a number up to 1 to a 16-bit dtype: half a unit in its last place."""
    return 0.0 if dtype is torch.float32 else torch.finfo(dtype).eps / 4


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_weights_of_each_head_and_averaged(name, dtype):
    problem = CASES[name].problem(dtype)
    truth, _ = exact_weights(problem)
    for target in HERE:
        with kernels.target(target):
            _, each = kernels.with_weights(problem)
            out, mean = kernels.with_weights(problem, average=True)
        check(out, exact(problem)[0], problem, 2 * rounded(dtype), f"output, on {target}")
        check(each, truth, problem, rounded(dtype), f"of each head, on {target}")
        check(mean, truth.mean(1), problem, rounded(dtype), f"averaged, on {target}")
        assert out.dtype == each.dtype == mean.dtype == dtype
        assert bool((each[truth == 0] == 0).all())  # a masked weight is exactly 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_statistics_and_weights_in_one_pass(name, dtype):
    problem = CASES[name].problem(dtype)
    wanted = kernels.Wanted(entropy=True, maximum=True, squares=True, mass=True, topk=3)
    truth, _ = exact_weights(problem)
    keys = truth.shape[3]
    for target in HERE:
        with kernels.target(target):
            result, rows, weights = kernels.run_with_weights(problem, wanted)
            out, each = kernels.with_weights(problem)
        torch.testing.assert_close(weights, each, atol=0, rtol=0, msg=f"on {target}")
        torch.testing.assert_close(result.out, out, atol=0, rtol=0)
        expected = {
            "entropy": torch.special.entr(truth).sum(-1),
            "maximum": truth.amax(-1),
            "squares": truth.square().sum(-1),
            "mass": truth.sum(-1),
            "best": torch.nn.functional.pad(truth.topk(min(3, keys), -1).values, (0, max(0, 3 - keys))),
        }
        for field, exactly in expected.items():
            check(getattr(rows, field), exactly, problem, label=f"{field}, on {target}")
        if keys >= 3:
            check(rows.best, truth.gather(-1, rows.best_keys), problem, label=f"best keys, on {target}")


def test_with_weights_returns_none_if_a_gradient_is_needed():
    problem = CASES["full"].problem()
    problem.query.requires_grad_()
    assert kernels.with_weights(problem) is None
    assert kernels.run_with_weights(problem, kernels.Wanted(entropy=True)) is None
    with torch.no_grad():
        assert kernels.with_weights(problem) is not None


@pytest.mark.parametrize("name", ["no query", "no key", "no batch", "no width"])
def test_axes_of_size_0(name):
    problem = CASES[name].problem()
    _, weights = kernels.with_weights(problem, average=True)
    assert weights.shape == (problem.query.shape[0], problem.query.shape[2], problem.key.shape[2])
    assert weights.isfinite().all()
