"""Clearhead's attention as a kernel of the Hugging Face hub: the functions of flash-attn, exact and on a CPU too.

`attn_implementation="ORGANISATION/REPOSITORY"` in transformers loads this module, and so does `kernels.get_kernel`.
Layouts are those of flash-attn: (B, L, H, D), or (T, H, D) packed; `causal` ends at the last key (bottom-right).
Options of flash-attn's interface that are not supported raise an error.
"""

import importlib.util
import sys
from pathlib import Path

import torch
from torch import Tensor

_installed = importlib.util.find_spec("clearhead")
if (
    _installed is None or _installed.origin is None
):  # an installed package comes first: one library, one pool of threads
    sys.path.append(str(Path(__file__).parent / "bundled"))

import clearhead  # noqa: E402
from clearhead import masks  # noqa: E402
from clearhead.errors import OptionError  # noqa: E402
from clearhead.multihead.transformers_backend import forward as flash_attn_forward  # noqa: E402

__all__ = ["flash_attn_forward", "flash_attn_func", "flash_attn_varlen_func", "supports_flash_attn"]
supports_flash_attn = True
EVERY_KEY = (-1, -1)


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = EVERY_KEY,
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Tensor:
    """Compute attention over a batch of sequences of one length.

    Args:
        q: (B, L, H, D).
        k: (B, S, H_kv, D); H_kv divides H.
        v: (B, S, H_kv, E).
        dropout_p: probability that a weight is dropped.
        softmax_scale: logit multiplier; default 1/sqrt(D).
        causal: query i may attend keys up to i + S - L.
        window_size: keys this far before and after query i + S - L; -1 = no limit.
        softcap: logits become softcap·tanh(logits / softcap); 0 = off.
        alibi_slopes: (H,); slope·|i + S - L - j| is subtracted from the logits.
        deterministic: ignored; results are always deterministic.
        return_attn_probs: refused; clearhead.attention(return_matrix=True) gives the weights.

    Returns:
        (B, L, H, E), in q's dtype.
    """
    if return_attn_probs:
        raise OptionError("return_attn_probs is not computed. Call clearhead.attention(..., return_matrix=True).")
    query, key, value = (x.transpose(1, 2) for x in (q, k, v))
    length, keys = query.shape[2], key.shape[2]
    mask = _mask(causal, window_size, keys - length)
    if alibi_slopes is not None:
        bias = masks.alibi(alibi_slopes).shifted(keys - length)
        mask = bias if mask is None else mask & bias
    out = clearhead.attention(
        query, key, value, mask, dropout_p, scale=softmax_scale, enable_gqa=True, softcap=softcap or None
    )
    return out.transpose(1, 2)


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = EVERY_KEY,
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Tensor | None = None,
) -> Tensor:
    """Compute attention within each of several packed sequences.

    Args:
        q: (T, H, D); sequence n is q[cu_seqlens_q[n]:cu_seqlens_q[n + 1]].
        k: (U, H_kv, D), cut by cu_seqlens_k.
        v: (U, H_kv, E).
        max_seqlen_q, max_seqlen_k: ignored.
        block_table: refused; a paged cache is not read.

    The other arguments are those of `flash_attn_func`.

    Returns:
        (T, H, E), in q's dtype.
    """
    if block_table is not None:
        raise OptionError("block_table is given, and a paged cache is not read. Pass keys and values packed.")
    same = cu_seqlens_q is cu_seqlens_k or torch.equal(cu_seqlens_q, cu_seqlens_k)
    if same and tuple(window_size) == EVERY_KEY and alibi_slopes is None and not return_attn_probs:
        return clearhead.attention_varlen(
            q, k, v, cu_seqlens_q, dropout_p=dropout_p, is_causal=causal, scale=softmax_scale, softcap=softcap or None
        )
    rows, columns = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    options = (dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs)
    parts = [
        flash_attn_func(q[None, a:b], k[None, c:d], v[None, c:d], *options)[0]
        for a, b, c, d in zip(rows, rows[1:], columns, columns[1:], strict=False)
    ]
    return torch.cat(parts)


def _mask(causal: bool, window_size: tuple[int, int], past: int) -> masks.Mask | None:
    """Return the mask rule of a window around query i + past; None if every key is allowed."""
    left, right = window_size
    right = 0 if causal else right
    mask = None if right < 0 else masks.causal(past + right)
    if left >= 0:
        after = ~masks.causal(past - left - 1)
        mask = after if mask is None else mask & after
    return mask
