"""Output and dense weights in one native pass, compared with the float64 reference on every kind of problem."""

import pytest
import torch

from clearhead import kernels

from ..cases import CASES
from ..oracle import exact_weights
from ..targets import HERE, needs_native

pytestmark = [needs_native, pytest.mark.pairwise(name=CASES)]
# Half a unit in the last place of a 16-bit weight up to 1. A logit's error is the relative error of its weight.
FLOOR = {torch.float32: 3e-6, torch.bfloat16: 2.1e-3, torch.float16: 3e-4}
NAMES = [name for name, case in CASES.items() if case.dropout_p == 0 and case.batch and case.length and case.keys]


@pytest.mark.parametrize("dtype", FLOOR, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_weights_of_each_head_and_averaged(name, dtype):
    problem = CASES[name].problem(dtype)
    truth = exact_weights(problem)[0]
    floor = max(FLOOR[dtype], 3e-3 if "large logits" in name else 0)
    for target in HERE:
        with kernels.target(target):
            _, each = kernels.with_weights(problem)
            out, mean = kernels.with_weights(problem, average=True)
            # Tile registers represent a float16 by two bfloat16 numbers, which loses 2^-18 of a product.
            tolerance = 1e-2 if "large logits" in name and dtype is torch.float16 else floor
            torch.testing.assert_close(out, kernels.run(problem).out, atol=3 * tolerance, rtol=4 * tolerance)
        torch.testing.assert_close(each.double(), truth, atol=floor, rtol=0, msg=f"of each head, on {target}")
        torch.testing.assert_close(mean.double(), truth.mean(1), atol=floor, rtol=0)
        assert each.dtype == mean.dtype == dtype
        assert bool((each[truth == 0] == 0).all())  # a masked weight is exactly 0


@pytest.mark.parametrize("dtype", FLOOR, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_statistics_and_weights_in_one_pass(name, dtype):
    problem = CASES[name].problem(dtype)
    wanted = kernels.Wanted(entropy=True, maximum=True, squares=True, mass=True, topk=3)
    truth = exact_weights(problem)[0]
    keys = truth.shape[3]
    floor = max(4 * FLOOR[dtype], 6e-3 if "large logits" in name else 0)
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
            found, scale = getattr(rows, field).double(), max(1, torch.tensor(keys).log().item())
            torch.testing.assert_close(found, exactly, atol=scale * floor, rtol=0, msg=lambda m, n=field: f"{n}: {m}")
        if keys >= 3:
            torch.testing.assert_close(truth.gather(-1, rows.best_keys), rows.best.double(), atol=floor, rtol=0)


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
