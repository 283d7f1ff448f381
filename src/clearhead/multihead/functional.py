"""`clearhead.attention`: torch's scaled_dot_product_attention, argument for argument, and what it cannot say."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from clearhead import arguments, kernels
from clearhead.masks import Mask, is_small, lower
from clearhead.masks.kinds import Causal, from_causal_bias
from clearhead.masks.lower import split_alibi
from clearhead.matrix import AttentionMatrix
from clearhead.multihead import blocks, checks, decomposed, scripted, stepwise, traced
from clearhead.multihead.layout import Layout, arrange

_lower = kernels.untraced(lower)
RULE_ENTRIES = 1 << 20  # a mask of up to so many entries, a megabyte, is made a tensor; a larger one stays a rule


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | Mask | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    return_lse: bool = False,
    return_matrix: bool = False,
    kernel: str | None = None,
) -> Any:
    """Compute exact softmax attention, softmax(Q Kᵀ · scale + mask) V.

    Axes: B batch, H heads, L queries, S keys, D head_dim, E value width. Two to four axes or more: (L, D), (B, L, D),
    (B, H, L, D), (*, B, H, L, D); batch axes broadcast.

    Args:
        query: (B, H, L, D), float64, float32, float16 or bfloat16.
        key: (B, H, S, D), or (B, H_kv, S, D) with `enable_gqa`, where H_kv divides H.
        value: (B, H, S, E), or (B, H_kv, S, E).
        attn_mask: broadcastable to (B, H, L, S). Bool: True = may attend. Float: added to the logits; gradients flow.
            Or one of clearhead.masks, which needs no L×S tensor.
        dropout_p: probability that a weight is dropped, the rest scaled by 1/(1-p). Applied whenever it is not 0.
        is_causal: query i may attend keys 0..i (top-left, also where L ≠ S).
        scale: logit multiplier, no unit; default 1/sqrt(D).
        enable_gqa: let each key head serve H / H_kv query heads.
        softcap: logits become softcap·tanh(logits / softcap) before the mask (Gemma 2).
        sinks: (H,) logits that take weight and give no value (gpt-oss; "attention is off by one").
        return_lse: also return the natural log of each row's sum of exp(logits), sinks included.
        return_matrix: also return the weights as an AttentionMatrix, which is never stored.
        kernel: force one of clearhead.kernels ("native", "torch", "reference"); None = choose.

    Returns:
        out (B, H, L, E) in query's dtype; or a tuple (out[, lse][, matrix]). lse is (B, H, L), float32 or wider. The
        matrix is always (B, H, L, S) and holds the weights before dropout. A row that may attend nothing gives out 0
        and lse -inf, where torch gives NaN in places (docs/differences.md).

    Raises:
        ShapeError, DtypeError, DeviceError, OptionError: also of the type torch raises for the same mistake.
        KernelError: the kernel asked for cannot compute this.

    Memory: O(B·H·(L+S)·D); the L×S weights are never stored.

    Source: Vaswani et al. 2017, eq. 1; Milakov & Gimelshein 2018, alg. 3; Ainslie et al. 2023 (GQA).

    Example:
        >>> q, k, v = torch.randn(3, 2, 4, 5, 8)
        >>> out, lse = attention(q, k, v, is_causal=True, return_lse=True)
        >>> out.shape, lse.shape
        (torch.Size([2, 4, 5, 8]), torch.Size([2, 4, 5]))
        >>> weights = torch.exp(q @ k.mT / 8**0.5 - lse[..., None]).tril()
        >>> torch.allclose(weights @ v, out, atol=1e-5)
        True
    """
    if type(attn_mask) is Causal and type(attn_mask.offset) is int and attn_mask.offset == 0 and not is_causal:
        attn_mask, is_causal = None, True  # equivalent, and has a fast path
    plain = type(dropout_p) in (int, float) and dropout_p == 0 and softcap is None and sinks is None and kernel is None
    if plain and not (return_matrix or isinstance(attn_mask, Mask)):
        compute = kernels.attend_with_lse if return_lse else kernels.attend
        out = compute(query, key, value, is_causal, scale, attn_mask, enable_gqa)
        if out is not None:
            if attn_mask is not None and attn_mask.dtype is not torch.bool:
                checks.warn_zero_one(attn_mask)
            return out
    options: dict[str, Any] = {
        "softcap": softcap, "sinks": sinks, "return_lse": return_lse, "return_matrix": return_matrix, "kernel": kernel,
    }  # fmt: skip
    if not (torch.compiler.is_compiling() or are_plain(query, key, value, attn_mask, sinks)):
        call = (query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
        return _take(attention, call, options)
    dropout_p, scale = checks.number("dropout_p", dropout_p), checks.number("scale", scale)
    checks.tensors(query, key, value)
    if query.is_nested or key.is_nested or value.is_nested:
        from clearhead.multihead.varlen import attention_nested  # it calls back to this function

        options |= {"attn_mask": attn_mask, "dropout_p": dropout_p, "is_causal": is_causal, "scale": scale}
        return attention_nested(query, key, value, attention, options)
    if scripted.is_tracing() and not decomposed.is_wanted():
        call = (query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
        return scripted.record(*call, **options)
    checks.dropout(dropout_p)
    layout, problem, rule = prepare(
        query, key, value, attn_mask, is_causal, scale, enable_gqa, softcap, sinks,
        dense=return_matrix and not matrix_takes(attn_mask),
    )  # fmt: skip
    result = fused(problem, dropout_p, kernel, rule)
    out, lse = layout.outward(result.out), result.lse
    if not (return_lse or return_matrix):
        return out
    matrix = matrix_of(problem, lse, rule) if return_matrix else None
    return tuple(part for part in (out, layout.outward(lse) if return_lse else None, matrix) if part is not None)


_take = arguments.Taking(
    attention,
    nested=("query", "key", "value"),
    convert={"attn_mask": from_causal_bias},
    twin=torch.nn.functional.scaled_dot_product_attention,
)
scripted.define(attention)


def are_plain(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> bool:
    """Whether a call has nothing to be understood, asked or refused. Query, key and value may be nested."""
    return arguments.are_plain(*others) and arguments.are_plain(query, key, value, nested=True)


def compiled_mask(attn_mask: Any) -> Any:
    """A mask as torch.compile meets it, which looks into no class but by its name."""
    if torch.compiler.is_compiling() and type(attn_mask).__name__ == "CausalBias":
        return from_causal_bias(attn_mask)
    return attn_mask


def prepare(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | Mask | None, is_causal: bool, scale: float | None,
    enable_gqa: bool, softcap: float | None = None, sinks: Tensor | None = None, *, dense: bool = False,
) -> tuple[Layout, kernels.Problem, Mask | None]:  # fmt: skip
    """Check a call, and describe it: the way in and out of its axes, the problem, and a rule that stays a rule.

    Args:
        dense: make a rule a tensor in any case.
    """
    attn_mask = compiled_mask(attn_mask)
    query, key, value, attn_mask = kernels.autocast(query, key, value, attn_mask)
    checks.inputs(query, key, value)
    layout = arrange(query, key, value, enable_gqa)
    checks.options(scale, softcap, sinks, layout.query.shape[1], query)
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1]) if query.shape[-1] else 1.0
    problem = kernels.Problem(
        layout.query, layout.key, layout.value, float(scale), is_causal, None, None, softcap, sinks
    )
    rule = None
    if isinstance(attn_mask, Mask):
        checks.rule(attn_mask, problem.query, problem.key, is_causal)
        problem, rule = under_rule(problem, attn_mask, dense)
    elif attn_mask is not None:
        checks.mask(attn_mask, layout.full, query, is_causal)
        boolean = attn_mask.dtype == torch.bool
        if not boolean and not traced.is_traced(query, attn_mask):
            checks.warn_zero_one(attn_mask)
        tensor = layout.inward(attn_mask)
        problem = dataclasses.replace(problem, allow=tensor if boolean else None, bias=None if boolean else tensor)
    return layout, problem, rule


def under_rule(problem: kernels.Problem, mask: Mask, dense: bool = False) -> tuple[kernels.Problem, Mask | None]:
    """Put a mask into a problem, where that takes no large tensor; else leave it a rule: (problem, rule or None).

    Args:
        dense: leave no rule in any case, for dense weights take none, and an AttentionMatrix none with a table of
            biases. A band costs nothing all the same; what is neither a band nor small is made an L×S tensor.
    """
    (batch, heads, length, _), keys = problem.query.shape, problem.key.shape[2]
    wide, high, *_ = mask.sizes()
    entries = (1 if wide is None else batch) * (1 if high is None else heads) * length * keys
    if not (dense or _is_traced(problem) or stepwise.is_wanted() or is_small(mask) or entries <= RULE_ENTRIES):
        return problem, mask
    lowered = _lower(mask, length, keys, device=problem.query.device)
    problem = dataclasses.replace(
        problem, allow=lowered.allow, bias=lowered.bias, alibi=lowered.alibi, alibi_offset=lowered.alibi_offset
    )
    if lowered.reach == (None, 0):
        return dataclasses.replace(problem, is_causal=True), None
    return dataclasses.replace(problem, reach=lowered.reach), None


def fused(
    problem: kernels.Problem, dropout_p: float = 0.0, kernel: str | None = None, rule: Mask | None = None
) -> kernels.Result:
    """Run a problem, with dropout: the one way from this room to the kernels.

    The dropout pattern's seed comes from torch's generator, so torch.manual_seed governs it.
    """
    if dropout_p == 1:  # every weight dropped: zeros, and a graph that says so
        result = fused(problem, 0.0, kernel, rule)
        return kernels.Result(result.out * 0, result.lse)
    if has_torch_function_unary(problem.query) and not torch.compiler.is_compiling():
        # A TorchFunctionMode is watching: let it see this call.
        return handle_torch_function(fused, (problem.query,), problem, dropout_p, kernel, rule)
    if stepwise.is_wanted() and rule is None and kernel in (None, "torch"):
        return stepwise.run(problem, float(dropout_p))
    if _is_traced(problem):
        if decomposed.is_wanted():
            return decomposed.run(problem, float(dropout_p))
        return traced.run(problem, float(dropout_p), kernel)
    if dropout_p > 0:
        problem = dataclasses.replace(
            problem, dropout_p=float(dropout_p), seed=int(torch.randint(2**62, (), device="cpu"))
        )
    return kernels.run(problem, kernel) if rule is None else blocks.run(problem, rule, kernel)


def _is_traced(problem: kernels.Problem) -> bool:
    others = (problem.key, problem.value, problem.allow, problem.bias, problem.sinks, problem.alibi)
    return traced.is_traced(problem.query, *others)


def matrix_takes(mask: Any) -> bool:
    """Whether a mask may stay a rule in an AttentionMatrix: it adds nothing to the logits but ALiBi."""
    return isinstance(mask, Mask) and split_alibi(mask.bias)[2] is None


def matrix_of(problem: kernels.Problem, lse: Tensor, rule: Mask | None = None) -> AttentionMatrix:
    """The weights of a problem, and of the rule beside it, as an AttentionMatrix, from the lse that is known."""
    if rule is not None:  # then the problem itself has no mask
        slopes, offset, _ = split_alibi(rule.bias)
        return AttentionMatrix(
            problem.query, problem.key, value=problem.value, scale=problem.scale, allow=rule.allow,
            softcap=problem.softcap, sinks=problem.sinks, lse=lse, alibi=slopes, alibi_offset=offset,
        )  # fmt: skip
    return AttentionMatrix(
        problem.query, problem.key, value=problem.value, scale=problem.scale, is_causal=problem.is_causal,
        allow=problem.allow, bias=problem.bias, softcap=problem.softcap, sinks=problem.sinks, reach=problem.reach,
        lse=lse, alibi=problem.alibi, alibi_offset=problem.alibi_offset,
    )  # fmt: skip
