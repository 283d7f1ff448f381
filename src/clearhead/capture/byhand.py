"""Attention a model computes by its own hand: a product, a softmax, and what is added between.

Models older than the attention interface (GPT-J, GPT-Neo, BLOOM, MPT, CodeGen …) multiply queries and keys, scale,
add, mask and call softmax themselves. Seen from outside, the softmax's input X and the product's operands are known.
If every entry of X that is not masked is scale·qᵢ·kⱼ + bⱼ for one scale and one number bⱼ a key (ALiBi), then the
attention is a matrix of known kind, and is recorded; if one entry is not, nothing is.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearhead.capture.call import Call
from clearhead.errors import CaptureError

_PRODUCTS = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm}
_SUMS_OF_PRODUCTS = {torch.baddbmm, Tensor.baddbmm}
_SOFTMAXES = {torch.softmax, Tensor.softmax, F.softmax}

WATCHED = _PRODUCTS | _SUMS_OF_PRODUCTS | _SOFTMAXES

# A logit this far below its row's largest weighs exactly 0 in any dtype: e^-1000 underflows even in float64.
UNSEEN = 1000.0
ROWS = 256


class ByHand:
    """Pairs each softmax with the product it came from, one attention module at a time."""

    def __init__(self) -> None:
        self._products: list[tuple[Tensor, Tensor]] = []
        self._module: nn.Module | None = None
        self._scales: dict[int, float] = {}

    def saw(self, module: nn.Module, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """Look at one torch function called inside an attention module; a softmax of logits gives a Call.

        Raises:
            CaptureError: a softmax over queries and keys whose input is more than scaled, biased, masked products.
        """
        if module is not self._module:
            self._module, self._products = module, []
        if func in _PRODUCTS:
            self._products.append((args[0], args[1] if len(args) > 1 else next(iter(kwargs.values()))))
        elif func in _SUMS_OF_PRODUCTS:
            named = dict(zip(("input", "batch1", "batch2"), args, strict=False)) | kwargs
            self._products.append((named["batch1"], named["batch2"]))
        elif func in _SOFTMAXES and args and isinstance(args[0], Tensor):
            return self._softmax(module, args[0])
        return None

    def _softmax(self, module: nn.Module, logits: Tensor) -> Call | None:
        if logits.dim() != 4:
            return None
        batch, heads, rows, keys = logits.shape
        for left, right in reversed(self._products):
            product = (*torch.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])
            if product[-2:] != (rows, keys) or torch.Size(product).numel() != logits.numel():
                continue
            query = left.expand(*product[:-2], -1, -1).reshape(batch, heads, rows, -1)
            key = right.expand(*product[:-2], -1, -1).mT.reshape(batch, heads, keys, -1)
            self._products = []
            return self._described(module, logits.detach(), query.detach(), key.detach())
        return None

    def _described(self, module: nn.Module, logits: Tensor, query: Tensor, key: Tensor) -> Call:
        logits, wide_query, wide_key = (t.float() if t.dtype.itemsize < 4 else t for t in (logits, query, key))
        allow = logits > (logits.amax(-1, keepdim=True) - UNSEEN).clamp_min(-9 * UNSEEN)
        scale = self._scale(module, logits, wide_query, wide_key, allow)
        bias = torch.full_like(logits[:, :, :1], -torch.inf)
        for low in (True, False):  # first find each key's bias, then see that every row agrees with it
            for start in range(0, logits.shape[2], ROWS):
                some = slice(start, start + ROWS)
                rest = logits[:, :, some] - scale * (wide_query[:, :, some] @ wide_key.mT)
                seen = allow[:, :, some]
                if low:
                    bias = torch.maximum(bias, rest.masked_fill(~seen, -torch.inf).amax(2, keepdim=True))
                else:
                    off = (rest - bias).masked_fill(~seen, 0.0).abs().max()
                    size = logits[:, :, some].masked_fill(~seen, 0.0).abs().max().clamp_min(1.0)
                    if not off <= 1e-5 * size * (1 if query.dtype.itemsize >= 4 else 1000):
                        raise CaptureError(
                            f"{type(module).__name__} adds something to its logits that differs from query to query "
                            f"(by {float(off):.1e}), so that they are more than scaled products and a bias of each key"
                        )
        bias = bias.masked_fill(bias == -torch.inf, 0.0)
        plain = bool(bias.abs().max() <= 1e-5 * logits.masked_fill(~allow, 0.0).abs().max().clamp_min(1.0))
        is_causal, mask = _simplest(allow)
        return Call(
            module=module,
            query=query,
            key=key,
            scale=scale,
            is_causal=is_causal,
            mask=mask,
            bias=None if plain else bias.to(query.dtype),
        )

    def _scale(self, module: nn.Module, logits: Tensor, query: Tensor, key: Tensor, allow: Tensor) -> float:
        """The slope of the logits against the products, from how both change between a row and the next.

        A key's bias cancels in that difference. One row alone (a step of generation) uses the scale found before.
        """
        if logits.shape[2] == 1:
            return self._scales.get(id(module), query.shape[-1] ** -0.5)
        few = slice(-ROWS, None)
        product = (query[:, :, few].double() @ key.double().mT).diff(dim=2)
        both = allow[:, :, few]
        both = both[:, :, 1:] & both[:, :, :-1]
        rise = logits[:, :, few].double().diff(dim=2).masked_fill(~both, 0.0)
        run = product.masked_fill(~both, 0.0)
        scale = float((rise * run).sum() / (run * run).sum().clamp_min(1e-300))
        self._scales[id(module)] = scale
        return scale


def _simplest(allow: Tensor) -> tuple[bool, Tensor | None]:
    """(is_causal, mask): the smallest description of a boolean (B, H, L, S), so that no L×S table is kept if it can."""
    if bool((allow == allow[:, :1]).all()):
        allow = allow[:, :1]
    rows, keys = allow.shape[2:]
    by_key = allow.any(2, keepdim=True)
    kept = None if bool(by_key.all()) else by_key
    if bool((allow == by_key).all()):
        return False, kept
    earlier = torch.ones(rows, keys, dtype=torch.bool, device=allow.device).tril()
    if bool((allow == (by_key & earlier)).all()):
        return True, kept
    return False, allow[:1].clone() if bool((allow == allow[:1]).all()) else allow.clone()
