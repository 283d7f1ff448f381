"""Dense attention of a problem, in float64 and as a torch user writes it: outputs, gradients, and the bound on an error."""

import torch
from torch import Tensor

import reference
from clearhead.kernels import Problem
from clearhead.spec import LEARNABLE, dropout

FLOOR = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def keep_factor(problem: Problem, dtype: torch.dtype) -> Tensor | None:
    if problem.attention.dropout_p == 0:
        return None
    kept = dropout.kept(problem.attention, problem.shape)
    return kept.to(dtype) / (1 - problem.attention.dropout_p)


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


def exact_weights(problem: Problem) -> tuple[Tensor, Tensor]:
    """Return the weights (B, H, L, S) without dropout, and the lse (B, H, L), in float64."""
    logits = reference.logits(
        problem.query,
        problem.key,
        scale=scale_of(problem, torch.float64),
        allow=allowed(problem),
        bias=added(problem, torch.float64),
        softcap=problem.attention.softcap,
    )
    lse = reference.lse(logits, problem.attention.sinks)
    return reference.weights(logits, lse), lse


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
