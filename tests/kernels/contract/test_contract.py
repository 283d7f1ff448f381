"""The contract of every kernel: values and gradients equal the float64 reference, on every kind of problem."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from clearhead import kernels
from clearhead.errors import KernelError
from clearhead.kernels import Problem
from devices import missing, placed

from ..cases import CASES
from ..implementations import IMPLEMENTATIONS, runner, skip_if_refused
from ..oracle import assert_as_exact, exact, gradients, learnable, plain
from ..targets import chosen

pytestmark = pytest.mark.pairwise(name=CASES)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@lru_cache(maxsize=4)
def expected(name: str, dtype: torch.dtype) -> tuple[Problem, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return a problem, its exact result and plain torch's, computed once for all implementations."""
    problem = CASES[name].problem(dtype)
    return problem, exact(problem), plain(problem)


@lru_cache(maxsize=4)
def expected_gradients(name: str, dtype: torch.dtype, through: str) -> tuple[Problem, *tuple[dict[str, Tensor], ...]]:
    problem = CASES[name].problem(dtype)
    return problem, gradients(exact, problem, through), gradients(plain, problem, through)


@pytest.fixture(params=IMPLEMENTATIONS)
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    if reason := missing():
        pytest.skip(reason)
    with chosen(request.param) as name:
        yield name


# The kernel is the innermost parameter, so that the expected results of a case are computed once for all kernels.
@pytest.mark.parametrize("kernel", IMPLEMENTATIONS, indirect=True)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_forward(kernel: str, name: str, dtype: torch.dtype) -> None:
    problem, (out, lse), (plain_out, plain_lse) = expected(name, dtype)
    skip_if_refused(kernel, problem)
    got_out, got_lse = runner(kernel)(problem)
    assert got_out.dtype == dtype
    assert got_lse.dtype in (torch.float32, torch.float64)
    assert_as_exact(got_out, out, plain_out, dtype)
    # The lse is never rounded to 16 bits. The error of torch's own is 6e-5, because its exp is a short polynomial.
    if dtype in (torch.bfloat16, torch.float16):
        assert_as_exact(got_lse, lse, lse, dtype, floor=2e-5)
    else:
        assert_as_exact(got_lse, lse, plain_lse, dtype)


@pytest.mark.parametrize("kernel", IMPLEMENTATIONS, indirect=True)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("through", ["out", "both"])
def test_gradients(kernel: str, name: str, through: str) -> None:
    problem, truth, yardstick = expected_gradients(name, torch.float32, through)
    skip_if_refused(kernel, problem)
    for tensor, grad in gradients(runner(kernel), problem, through).items():
        assert grad.dtype == torch.float32
        assert_as_exact(grad, truth[tensor].double(), yardstick[tensor], torch.float32, floor=CASES[name].floor)


@pytest.mark.parametrize("kernel", IMPLEMENTATIONS, indirect=True)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "full",
        "grouped causal",
        "mask",
        "bias",
        "sinks",
        "dropout",
        "alibi",
        "softcap",
        "negative scale",
        "scale per head",
    ],
)
def test_gradients_of_other_dtypes(kernel: str, name: str, dtype: torch.dtype) -> None:
    problem, truth, yardstick = expected_gradients(name, dtype, "out")
    skip_if_refused(kernel, problem)
    for tensor, grad in gradients(runner(kernel), problem, "out").items():
        assert grad.dtype == dtype
        assert_as_exact(grad, truth[tensor].double(), yardstick[tensor], dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grouped causal", "bias per key", "sinks, empty rows", "softcap", "dropout"])
def test_gradcheck(kernel: str, name: str) -> None:
    """Compare with finite differences, which are independent of the formula."""
    small = replace(CASES[name], batch=1, length=5, keys=7, width=3, value_width=2)
    problem = small.problem(torch.float64)
    skip_if_refused(kernel, problem)
    tensors = learnable(problem)

    def function(*learning: Tensor) -> tuple[Tensor, Tensor]:
        out, lse = runner(kernel)(problem.change(**dict(zip(tensors, learning, strict=True))))
        return out, lse.masked_fill(lse == -torch.inf, 0)

    tensors = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
    # The whole Jacobian for the reference; for others its product with random vectors, in a tenth of the time.
    assert torch.autograd.gradcheck(function, list(tensors.values()), fast_mode=kernel != "reference")


def test_empty_rows_are_zero_in_values_and_gradients(kernel: str) -> None:
    problem = CASES["mask"].problem()
    skip_if_refused(kernel, problem)
    assert problem.attention.allow is not None
    empty = ~problem.attention.allow.any(-1)
    out, lse = runner(kernel)(problem)
    assert torch.equal(out[:, :, empty], torch.zeros_like(out[:, :, empty]))
    assert (lse[:, :, empty] == -torch.inf).all()
    assert lse[:, :, ~empty].isfinite().all()
    for grad in gradients(runner(kernel), problem, "both").values():
        assert grad.isfinite().all()
    assert gradients(runner(kernel), problem, "both")["query"][:, :, empty].abs().max() == 0


def test_the_lse_includes_sinks(kernel: str) -> None:
    problem = CASES["no key, sinks"].problem()
    skip_if_refused(kernel, problem)
    assert problem.attention.sinks is not None
    _, lse = runner(kernel)(problem)
    assert torch.equal(lse.float(), problem.attention.sinks[None, :, None].expand(lse.shape))


def test_two_runs_give_the_same_bits(kernel: str) -> None:
    problem = CASES["dropout causal grouped"].problem()
    skip_if_refused(kernel, problem)
    first, second = (gradients(runner(kernel), problem, "both") for _ in range(2))
    for name, grad in first.items():
        assert torch.equal(grad, second[name])


def test_a_second_derivative_is_refused(kernel: str) -> None:
    problem = CASES["full"].problem()
    query = problem.query.clone().requires_grad_()
    skip_if_refused(kernel, problem)
    out, _ = runner(kernel)(problem.change(query=query))
    (grad,) = torch.autograd.grad(out.sum(), query, create_graph=True)
    with pytest.raises(KernelError, match=r"differentiated twice.*use torch.func.hessian"):
        grad.sum().backward()


def test_an_in_place_change_before_backward_is_detected(kernel: str) -> None:
    problem = placed(CASES["full"].problem())
    skip_if_refused(kernel, problem)
    key = problem.key.clone().requires_grad_()
    held = key * 1.0
    out = kernels.run(problem.change(key=held), kernel=kernel).out
    held.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
