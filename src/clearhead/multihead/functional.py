"""`clearhead.attention`: torch's scaled_dot_product_attention, argument for argument, and what it cannot say."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from clearhead import kernels
from clearhead.matrix import AttentionMatrix
from clearhead.multihead import checks
from clearhead.multihead.layout import Layout, arrange


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
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
    checks.inputs(query, key, value)
    query, key, value = _autocast(query, key, value)
    layout = arrange(query, key, value, enable_gqa)
    checks.options(dropout_p, scale, softcap, sinks, layout.query.shape[1], query)
    allow, bias = _mask(attn_mask, layout, query, is_causal)
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1]) if query.shape[-1] else 1.0
    problem = kernels.Problem(
        layout.query, layout.key, layout.value, float(scale), is_causal, allow, bias, softcap, sinks
    )  # fmt: skip
    result = fused(problem, dropout_p, kernel)
    out, lse = layout.outward(result.out), result.lse
    if not (return_lse or return_matrix):
        return out
    matrix = _matrix(problem, lse) if return_matrix else None
    return tuple(part for part in (out, layout.outward(lse) if return_lse else None, matrix) if part is not None)


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Do what torch.autocast does to scaled_dot_product_attention: compute in its dtype. float64 stays."""
    device = tensors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in tensors)


def _mask(attn_mask: Any, layout: Layout, query: Tensor, is_causal: bool) -> tuple[Tensor | None, Tensor | None]:
    """Split a mask into (allow, bias), each broadcastable to (B, H, L, S)."""
    if attn_mask is None:
        return None, None
    checks.mask(attn_mask, layout.full, query, is_causal)
    inward = layout.inward(attn_mask)
    if attn_mask.dtype == torch.bool:
        return inward, None
    checks.warn_zero_one(attn_mask)
    return None, inward


def fused(problem: kernels.Problem, dropout_p: float, kernel: str | None = None) -> kernels.Result:
    """Run a problem with dropout. The pattern's seed comes from torch's generator, so torch.manual_seed governs it."""
    if dropout_p == 0:
        return kernels.run(problem, kernel)
    if dropout_p == 1:  # every weight dropped: zeros, and a graph that says so
        result = kernels.run(problem, kernel)
        return kernels.Result(result.out * 0, result.lse)
    seed = int(torch.randint(2**62, ()))
    return kernels.run(dataclasses.replace(problem, dropout_p=float(dropout_p), seed=seed), kernel)


def _matrix(problem: kernels.Problem, lse: Tensor) -> AttentionMatrix:
    return AttentionMatrix(
        problem.query, problem.key, value=problem.value, scale=problem.scale, is_causal=problem.is_causal,
        allow=problem.allow, bias=problem.bias, softcap=problem.softcap, sinks=problem.sinks, lse=lse,
    )  # fmt: skip
