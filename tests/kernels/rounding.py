"""Bounds on rounding errors, from the dtype's epsilon and the sizes of a problem.

A logit of size x has an error of about eps·x for any order of summation, and its weight has that relative error. So the
lse, the weights, their sums and other statistics are exact to some units of eps · (1 + largest logit) · their own size.
"""

import torch
from torch import Tensor

import reference
from clearhead.kernels import Problem


def largest_logit(problem: Problem) -> float:
    key = problem.key.repeat_interleave(problem.group, 1)
    size = (problem.query.double() @ key.double().mT * problem.attention.scale).abs().max().item()
    return min(size, problem.attention.softcap or size)


def logit_unit(problem: Problem, dtype: torch.dtype = torch.float32) -> float:
    """Return eps · (1 + largest logit), for sums and statistics in this dtype."""
    return torch.finfo(dtype).eps * (1 + largest_logit(problem))


def assert_within(actual: Tensor, exact: Tensor, unit: float, units: float, label: str = "") -> None:
    """Assert that no entry is off by more than so many units times the largest finite entry, or times 1 if that is less."""
    assert actual.shape == exact.shape, f"{label}: {tuple(actual.shape)} instead of {tuple(exact.shape)}"
    actual, exact = actual.double(), exact.double()
    finite = exact.isfinite()
    assert torch.equal(actual[~finite], exact[~finite]), f"{label}: other infinities"
    if finite.any():
        size = max(1.0, exact[finite].abs().max().item())
        worst = (actual - exact)[finite].abs().max().item() / (unit * size)
        assert worst <= units, f"{label}: off by {worst:.2f} units of {unit * size:.3g}, at most {units}"


def largest_terms(
    query: Tensor, key: Tensor, value: Tensor, lse: Tensor, out: Tensor,
    upstream: Tensor, scale: float, causal: bool,
) -> tuple[float, float, float]:  # fmt: skip
    """Return the largest gradient of query, key and value if no terms cancelled, as they do for a single key."""
    tensors = [x.detach().double() for x in (query, key, value)]
    group = query.shape[1] // key.shape[1]
    q, k, v, u = (
        x.abs() for x in (tensors[0], *(x.repeat_interleave(group, 1) for x in tensors[1:]), upstream.double())
    )
    weights = reference.weights(reference.logits(*tensors[:2], scale=scale, is_causal=causal), lse.detach())
    logits = weights * (u @ v.mT + (u * out.detach().abs()).sum(-1, keepdim=True)) * abs(scale)
    of_key, of_value = (x.unflatten(1, (-1, group)).sum(2) for x in (logits.mT @ q, weights.mT @ u))
    return tuple(float(x.max()) for x in (logits @ k, of_key, of_value))
