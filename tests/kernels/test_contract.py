"""The contract of every kernel: values and gradients equal the float64 reference, on every kind of problem."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import Tensor

import reference
from clearhead import kernels
from clearhead.errors import KernelError
from clearhead.kernels import Problem
from clearhead.kernels.registry import KERNELS
from clearhead.spec import LEARNABLE, dropout
from devices import missing, placed

from .cases import CASES
from .targets import chosen, on

pytestmark = pytest.mark.pairwise(name=CASES)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

FLOOR = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def refuses(kernel: str, problem: Problem) -> str | None:
    return KERNELS[kernel].unavailable() or KERNELS[kernel].refuses(placed(problem))


def skip_if_refused(kernel: str, problem: Problem) -> None:
    if reason := refuses(kernel, problem):
        pytest.skip(f"the {kernel} kernel refuses this problem: {reason}")


def keep_factor(problem: Problem, dtype: torch.dtype) -> Tensor | None:
    if problem.attention.dropout_p == 0:
        return None
    kept = dropout.kept(problem.attention, problem.shape)
    return kept.to(dtype) / (1 - problem.attention.dropout_p)


@lru_cache(maxsize=4)
def expected(name: str, dtype: torch.dtype) -> tuple[Problem, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return a problem, its exact result and plain torch's, computed once for all implementations."""
    problem = CASES[name].problem(dtype)
    return problem, exact(problem), plain(problem)


@lru_cache(maxsize=4)
def expected_gradients(name: str, dtype: torch.dtype, through: str) -> tuple[Problem, *tuple[dict[str, Tensor], ...]]:
    problem = CASES[name].problem(dtype)
    return problem, gradients(exact, problem, through), gradients(plain, problem, through)


def allowed(problem: Problem) -> Tensor:
    """Return the masks and the band as one dense mask."""
    length, keys = problem.query.shape[2], problem.key.shape[2]
    may = torch.ones(length, keys, dtype=torch.bool)
    low, high = problem.attention.reach
    if low is not None:
        may = may.triu(low)
    if high is not None:
        may = may.tril(high)
    return may if problem.attention.allow is None else may & problem.attention.allow


def added(problem: Problem, dtype: torch.dtype) -> Tensor | None:
    """Return everything that is added to the logits as one dense bias."""
    bias = None if problem.attention.bias is None else problem.attention.bias.to(dtype)
    if problem.attention.alibi is None:
        return bias
    places = torch.arange(problem.query.shape[2]) + problem.attention.offset
    distance = (places[:, None] - torch.arange(problem.key.shape[2])).abs().to(dtype)
    slopes = -problem.attention.alibi.to(dtype)[:, None, None] * distance
    return slopes if bias is None else bias + slopes


def scale_of(problem: Problem, dtype: torch.dtype) -> float | Tensor:
    """Return the factor on each head's products, (H, 1, 1) if heads differ."""
    attention = problem.attention
    return (
        attention.scale
        if attention.head_scale is None
        else attention.scale * attention.head_scale.to(dtype)[:, None, None]
    )


def exact(problem: Problem) -> tuple[Tensor, Tensor]:
    return reference.attention(
        problem.query,
        problem.key,
        problem.value,
        sinks=problem.attention.sinks,
        keep=keep_factor(problem, torch.float64),
        scale=scale_of(problem, torch.float64),
        allow=allowed(problem),
        bias=added(problem, torch.float64),
        softcap=problem.attention.softcap,
    )


def plain(problem: Problem) -> tuple[Tensor, Tensor]:
    """Compute the attention as a torch user writes it, dense and in the tensors' dtype. Its error is the yardstick."""
    key = problem.key.repeat_interleave(problem.group, dim=1)
    value = problem.value.repeat_interleave(problem.group, dim=1)
    logits = (problem.query * scale_of(problem, problem.query.dtype)) @ key.mT
    if problem.attention.softcap is not None:
        logits = problem.attention.softcap * torch.tanh(logits / problem.attention.softcap)
    bias = added(problem, logits.dtype)
    if bias is not None:
        logits = logits + bias
    logits = logits.masked_fill(~allowed(problem), -torch.inf)
    lse = torch.logsumexp(logits, -1)
    if problem.attention.sinks is not None:
        lse = torch.logaddexp(lse, problem.attention.sinks[:, None])
    weights = torch.exp(logits - lse.masked_fill(lse == -torch.inf, 0)[..., None])
    keep = keep_factor(problem, logits.dtype)
    return (weights if keep is None else weights * keep) @ value, lse


def learnable(problem: Problem) -> dict[str, Tensor]:
    """Return the tensors gradients flow to, by name."""
    own = {name: tensor for name, tensor in problem.attention.tensors().items() if name in LEARNABLE}
    return {"query": problem.query, "key": problem.key, "value": problem.value, **own}


def gradients(compute, problem: Problem, through: str) -> dict[str, Tensor]:
    """Return the gradients of a fixed random function of out ("out"), of the finite lse ("lse"), or of both."""
    tensors = {name: tensor.detach().clone().requires_grad_() for name, tensor in learnable(problem).items()}
    out, lse = compute(problem.change(**tensors))
    make = torch.Generator().manual_seed(5)
    total = torch.zeros((), dtype=torch.float64)
    if through in ("out", "both"):
        total = total + (out.double() * torch.randn(out.shape, generator=make).double()).sum()
    if through in ("lse", "both"):
        finite = torch.where(lse == -torch.inf, 0, lse.double())
        total = total + (finite * torch.randn(lse.shape, generator=make).double()).sum()
    if not total.requires_grad:  # no key may be attended, so the lse is a constant
        return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    got = torch.autograd.grad(total, tuple(tensors.values()), allow_unused=True)
    return {
        name: torch.zeros_like(tensor) if grad is None else grad
        for (name, tensor), grad in zip(tensors.items(), got, strict=True)
    }


def assert_as_exact(got: Tensor, truth: Tensor, yardstick: Tensor, dtype: torch.dtype, floor: float = 0) -> None:
    """Check that the largest error is at most twice plain torch's, plus a floor, and that infinities agree."""
    assert got.shape == truth.shape
    assert not got.isnan().any()
    infinite = truth.isinf()
    assert torch.equal(got.isinf(), infinite)
    assert torch.equal(got[infinite].double(), truth[infinite])
    if truth.numel() == 0 or infinite.all():
        return
    size = truth[~infinite].abs().max().item()
    error = (got.double() - truth)[~infinite].abs().max().item()
    # Not every plain result is finite: it may be NaN where ours must not be.
    theirs = (yardstick.double() - truth)[~infinite].abs().nan_to_num(0, 0, 0).max().item()
    assert error <= 2 * theirs + (floor or FLOOR[dtype]) * max(1.0, size), (
        f"error {error:.2e}, plain torch's {theirs:.2e}"
    )


# Every kernel; the native one once per CPU target. Triton's interpreter takes seconds per test, so test_triton.py has a
# sample of its cases.
IMPLEMENTATIONS = [
    *(name for name in KERNELS if name not in ("native", "triton")),
    *(on(t, "native-") for t in kernels.targets()),
    pytest.param("triton", marks=pytest.mark.stress),
]


@pytest.fixture(params=IMPLEMENTATIONS)
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    if reason := missing():
        pytest.skip(reason)
    with chosen(request.param) as name:
        yield name


def runner(kernel: str):
    def compute(problem: Problem) -> tuple[Tensor, Tensor]:
        result = kernels.run(placed(problem), kernel=kernel)
        return result.out.cpu(), result.lse.cpu()

    return compute


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
