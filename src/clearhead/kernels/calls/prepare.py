"""From the arguments of `attention` to a problem: checked, in one layout, with the mask in the form a kernel takes."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from clearhead.kernels import modes
from clearhead.kernels.calls import checks
from clearhead.kernels.calls.layout import Layout, arrange
from clearhead.kernels.precision import autocast
from clearhead.kernels.problem import Problem
from clearhead.kernels.tracing import untraced
from clearhead.masks import Mask, is_small, lower
from clearhead.masks.kinds import Causal, from_causal_bias
from clearhead.masks.lower import split_alibi

_lower = untraced(lower)
RULE_ENTRIES = 1 << 20  # a mask of up to so many entries, a megabyte, is made a tensor; a larger one stays a rule


def is_causal_rule(attn_mask: Any) -> bool:
    """Whether a mask is `masks.causal()`: equivalent to is_causal=True, which has a fast path."""
    return type(attn_mask) is Causal and type(attn_mask.offset) is int and attn_mask.offset == 0


def is_simple(
    attn_mask: Any, dropout_p: Any, softcap: Any, sinks: Any, return_matrix: bool, kernel: str | None
) -> bool:
    """Whether a call has nothing beyond query, key, value, a mask tensor and a scale: what the fast path may take."""
    none = softcap is None and sinks is None and kernel is None and not return_matrix
    return none and type(dropout_p) in (int, float) and dropout_p == 0 and not isinstance(attn_mask, Mask)


def compiled_mask(attn_mask: Any) -> Any:
    """A mask as torch.compile meets it, which looks into no class but by its name."""
    if torch.compiler.is_compiling() and type(attn_mask).__name__ == "CausalBias":
        return from_causal_bias(attn_mask)
    return attn_mask


def prepare(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | Mask | None, is_causal: bool, scale: float | None,
    enable_gqa: bool, softcap: float | None = None, sinks: Tensor | None = None, *, dense: bool = False,
) -> tuple[Layout, Problem, Mask | None]:  # fmt: skip
    """Check a call, and describe it: the way in and out of its axes, the problem, and a rule that stays a rule.

    Args:
        dense: make a rule a tensor in any case.
    """
    attn_mask = compiled_mask(attn_mask)
    query, key, value, attn_mask = autocast(query, key, value, attn_mask)
    checks.inputs(query, key, value)
    layout = arrange(query, key, value, enable_gqa)
    checks.options(scale, softcap, sinks, layout.query.shape[1], query)
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1]) if query.shape[-1] else 1.0
    problem = Problem(layout.query, layout.key, layout.value, float(scale), is_causal, None, None, softcap, sinks)
    rule = None
    if isinstance(attn_mask, Mask):
        checks.rule(attn_mask, problem.query, problem.key, is_causal)
        problem, rule = under_rule(problem, attn_mask, dense)
    elif attn_mask is not None:
        checks.mask(attn_mask, layout.full, query, is_causal)
        boolean = attn_mask.dtype == torch.bool
        if not boolean and not modes.records_operators(query, attn_mask):
            checks.warn_zero_one(attn_mask)
        tensor = layout.inward(attn_mask)
        problem = dataclasses.replace(problem, allow=tensor if boolean else None, bias=None if boolean else tensor)
    return layout, problem, rule


def under_rule(problem: Problem, mask: Mask, dense: bool = False) -> tuple[Problem, Mask | None]:
    """Put a mask into a problem, where that takes no large tensor; else leave it a rule: (problem, rule or None).

    Args:
        dense: leave no rule in any case, for dense weights take none, and an AttentionMatrix none with a table of
            biases. A band costs nothing all the same; what is neither a band nor small is made an L×S tensor.
    """
    (batch, heads, length, _), keys = problem.query.shape, problem.key.shape[2]
    wide, high, *_ = mask.sizes()
    entries = (1 if wide is None else batch) * (1 if high is None else heads) * length * keys
    as_tensor = dense or _records_operators(problem) or modes.differentiates_forward()
    if not (as_tensor or is_small(mask) or entries <= RULE_ENTRIES):
        return problem, mask
    lowered = _lower(mask, length, keys, device=problem.query.device)
    problem = dataclasses.replace(
        problem, allow=lowered.allow, bias=lowered.bias, alibi=lowered.alibi, alibi_offset=lowered.alibi_offset
    )
    if lowered.reach == (None, 0):
        return dataclasses.replace(problem, is_causal=True), None
    return dataclasses.replace(problem, reach=lowered.reach), None


def _records_operators(problem: Problem) -> bool:
    others = (problem.key, problem.value, problem.allow, problem.bias, problem.sinks, problem.alibi)
    return modes.records_operators(problem.query, *others)


def matrix_takes(mask: Any) -> bool:
    """Whether a mask may stay a rule in an AttentionMatrix: it adds nothing to the logits but ALiBi."""
    return isinstance(mask, Mask) and split_alibi(mask.bias)[2] is None
