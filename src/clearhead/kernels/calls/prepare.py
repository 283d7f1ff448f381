"""Prepare the arguments of `attention`: validate them, arrange the axes, and bring the mask into a kernel's form."""

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
from clearhead.spec import Attention

_lower = untraced(lower)
RULE_ENTRIES = 1 << 20  # a mask of up to this many entries (1 MiB) becomes a tensor; a larger one stays a rule


def is_causal_rule(attn_mask: Any) -> bool:
    """Return whether a mask is `masks.causal()`, equivalent to is_causal=True, which has a fast path."""
    return type(attn_mask) is Causal and type(attn_mask.offset) is int and attn_mask.offset == 0


def is_simple(
    attn_mask: Any, dropout_p: Any, softcap: Any, sinks: Any, return_matrix: bool, kernel: str | None
) -> bool:
    """Return whether a call has only query, key, value, a mask tensor and a scale, which the fast path supports."""
    none = softcap is None and sinks is None and kernel is None and not return_matrix
    return none and type(dropout_p) in (int, float) and dropout_p == 0 and not isinstance(attn_mask, Mask)


def compiled_mask(attn_mask: Any) -> Any:
    """Convert a CausalBias under torch.compile, which can identify its class only by name."""
    if torch.compiler.is_compiling() and type(attn_mask).__name__ == "CausalBias":
        return from_causal_bias(attn_mask)
    return attn_mask


def prepare(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | Mask | None, is_causal: bool, scale: float | None,
    enable_gqa: bool, softcap: float | None = None, sinks: Tensor | None = None, dropout_p: float = 0.0, *,
    dense: bool = False,
) -> tuple[Layout, Problem]:  # fmt: skip
    """Validate a call; return the layout of its axes and its problem.

    Args:
        dense: convert a mask that is a rule to a tensor in any case.
    """
    attn_mask = compiled_mask(attn_mask)
    query, key, value, attn_mask = autocast(query, key, value, attn_mask)
    checks.inputs(query, key, value)
    layout = arrange(query, key, value, enable_gqa)
    checks.options(scale, softcap, sinks, layout.query.shape[1], query)
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1]) if query.shape[-1] else 1.0
    allow = bias = None
    if isinstance(attn_mask, Mask):
        checks.rule(attn_mask, layout.query, layout.key, is_causal)
    elif attn_mask is not None:
        checks.mask(attn_mask, layout.full, query, is_causal)
        boolean = attn_mask.dtype == torch.bool
        if not boolean and not modes.records_operators(query, attn_mask):
            checks.warn_zero_one(attn_mask)
        tensor = layout.inward(attn_mask)
        allow, bias = (tensor, None) if boolean else (None, tensor)
    attention = Attention.of(
        scale, is_causal=is_causal, allow=allow, bias=bias, softcap=softcap, sinks=sinks, dropout_p=dropout_p
    )
    problem = Problem(layout.query, layout.key, layout.value, attention)
    return layout, under_mask(problem, attn_mask, dense) if isinstance(attn_mask, Mask) else problem


def under_mask(problem: Problem, mask: Mask, dense: bool = False) -> Problem:
    """Return the problem with a mask applied: lowered if that needs no large tensor, else as a rule.

    Args:
        dense: lower it in any case. Dense weights do not support a rule, nor does an AttentionMatrix if the mask has a
            bias other than ALiBi. A mask that is neither a band nor small then becomes an L×S tensor.
    """
    batch, heads, length, keys = problem.shape
    of_batch, of_heads, *_ = mask.sizes()
    entries = (1 if of_batch is None else batch) * (1 if of_heads is None else heads) * length * keys
    as_tensor = dense or records_operators(problem) or modes.differentiates_forward()
    if not (as_tensor or is_small(mask) or entries <= RULE_ENTRIES):
        return problem.change(rule=mask)
    lowered = _lower(mask, length, keys, device=problem.query.device)
    return dataclasses.replace(problem, attention=problem.attention.under(lowered))


def records_operators(problem: Problem) -> bool:
    """Return whether operators are recorded or transformed, or a problem's tensors hold no data."""
    tensors = problem.attention.tensors().values()
    return modes.records_operators(problem.query, problem.key, problem.value, *tensors)


def matrix_takes(mask: Any) -> bool:
    """Return whether a mask can stay a rule in an AttentionMatrix: it has no bias except ALiBi."""
    return isinstance(mask, Mask) and split_alibi(mask.bias)[2] is None
