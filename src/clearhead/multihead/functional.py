"""`clearhead.attention`: a drop-in for torch's scaled_dot_product_attention with further options."""

from typing import Any

import torch
from torch import Tensor

from clearhead import arguments
from clearhead.kernels import attend, attend_with_lse, modes
from clearhead.kernels.calls import checks
from clearhead.kernels.calls.prepare import is_causal_rule, matrix_takes, prepare
from clearhead.masks import Mask
from clearhead.masks.kinds import from_causal_bias
from clearhead.multihead.fused import fused, matrix_of
from clearhead.multihead.operators import torchscript
from clearhead.multihead.varlen import attention_nested


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
        key: (B, H, S, D), or (B, H_kv, S, D) with `enable_gqa`; H_kv divides H.
        value: (B, H, S, E), or (B, H_kv, S, E).
        attn_mask: broadcastable to (B, H, L, S). Bool: True = may attend. Float: added to the logits; gradients flow.
            Or one of clearhead.masks, which needs no L×S tensor.
        dropout_p: probability that a weight is dropped; the rest are scaled by 1/(1-p). Applied whenever it is not 0.
        is_causal: query i may attend keys 0..i (top-left, also where L ≠ S).
        scale: logit multiplier, no unit; default 1/sqrt(D). Or a tensor (H,), one per query head (QK-norm); it learns.
        enable_gqa: let each key head serve H / H_kv query heads.
        softcap: logits become softcap·tanh(logits / softcap) before the mask (Gemma 2).
        sinks: (H,) one extra logit per head that takes weight and has no value (gpt-oss; "attention is off by one").
        return_lse: also return the natural log of each row's sum of exp(logits), sinks included.
        return_matrix: also return the weights as an AttentionMatrix, which is never stored.
        kernel: force one of clearhead.kernels ("native", "torch", "reference"); None = chosen by the plan.

    Returns:
        out (B, H, L, E) in query's dtype; or a tuple (out[, lse][, matrix]). lse is (B, H, L), float32 or wider. The
        matrix is always (B, H, L, S) and holds the weights before dropout. A row that may attend nothing gives out 0
        and lse -inf, where torch gives NaN in places (docs/differences.md).

    Raises:
        ShapeError, DtypeError, DeviceError, OptionError: also of the type torch raises for the same mistake.
        KernelError: the forced kernel cannot compute this call.

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
    if attn_mask is not None and type(attn_mask) is not Tensor and not is_causal and is_causal_rule(attn_mask):
        attn_mask, is_causal = None, True
    # kernels.calls.prepare.is_simple, written for speed: behind a backward pass a call, a tuple and a look-up by name
    # take 0.2 to 0.5 µs each, of the 50 µs that a few tokens take.
    if (
        softcap is None and sinks is None and kernel is None and not return_matrix
        and (is_causal is False or is_causal is True)
        and (type(dropout_p) is float or type(dropout_p) is int) and dropout_p == 0
        and (attn_mask is None or type(attn_mask) is Tensor or not isinstance(attn_mask, Mask))
    ):  # fmt: skip
        out = (attend_with_lse if return_lse else attend)(query, key, value, is_causal, scale, attn_mask, enable_gqa)
        if out is not None:
            if attn_mask is not None and attn_mask.dtype is not torch.bool:
                checks.warn_zero_one(attn_mask)
            return out
    options: dict[str, Any] = {
        "softcap": softcap, "sinks": sinks, "return_lse": return_lse, "return_matrix": return_matrix, "kernel": kernel,
    }  # fmt: skip
    if not (torch.compiler.is_compiling() or are_plain(query, key, value, attn_mask, sinks, scale)):
        call = (query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
        return _handle(attention, call, options)
    dropout_p, scale, softcap = map(checks.number, (dropout_p, scale, softcap))
    checks.tensors(query, key, value)
    is_causal = checks.flag(is_causal, "is_causal")
    if query.is_nested or key.is_nested or value.is_nested:
        options |= {"attn_mask": attn_mask, "dropout_p": dropout_p, "is_causal": is_causal, "scale": scale}
        return attention_nested(query, key, value, attention, options)
    if modes.traces_torchscript():
        call = (query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
        return torchscript.record(*call, **options)
    checks.dropout(dropout_p)
    layout, problem = prepare(
        query, key, value, attn_mask, is_causal, scale, enable_gqa, softcap, sinks, float(dropout_p),
        dense=return_matrix and not matrix_takes(attn_mask),
    )  # fmt: skip
    result = fused(problem, kernel)
    out, lse = layout.outward(result.out), result.lse
    if not (return_lse or return_matrix):
        return out
    matrix = matrix_of(problem, lse) if return_matrix else None
    return tuple(part for part in (out, layout.outward(lse) if return_lse else None, matrix) if part is not None)


_handle = arguments.ArgumentHandler(
    attention,
    nested=("query", "key", "value"),
    convert={"attn_mask": from_causal_bias},
    twin=torch.nn.functional.scaled_dot_product_attention,
)
torchscript.define(attention)


def are_plain(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> bool:
    """Return whether no argument has to be converted, dispatched or refused. Query, key and value may be nested."""
    return arguments.are_plain(*others) and arguments.are_plain(query, key, value, nested=True)
