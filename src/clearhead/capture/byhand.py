"""Attention a model computes by its own hand: a product, a softmax, and what is added between.

Models older than the attention interface (GPT-J, GPT-Neo, BLOOM, MPT, DeBERTa, XLNet …) multiply queries and keys,
scale, add, mask and call softmax themselves. Seen from outside, the softmax's input X and the product's operands are
known. Let X = scale·QKᵀ + R where it is not masked. If R is one number a key (ALiBi) or nothing, that is all there is
to keep. Else (positions that differ from query to query: DeBERTa, XLNet) R is kept too, as the table of B·H·L·S the
model itself made, so that what is recorded is always right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearhead.capture.call import Call
from clearhead.capture.tables import shared, simplest
from clearhead.errors import CaptureError

_PRODUCTS = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm}
_SUMS_OF_PRODUCTS = {torch.baddbmm, Tensor.baddbmm}
_SOFTMAXES = {torch.softmax, Tensor.softmax, F.softmax}

WATCHED = _PRODUCTS | _SUMS_OF_PRODUCTS | _SOFTMAXES | {torch.einsum}

# A logit this far below its row's largest weighs exactly 0 in any dtype: e^-1000 underflows even in float64.
UNSEEN = 1000.0
ROWS = 256
CLOSE = 1e-5  # how far two logits that should be one may lie apart, as a share of the largest
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")


@dataclass(slots=True)
class _Pass:
    """One forward pass of an attention module: its products so far, and the attention found."""

    module: nn.Module
    products: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    found: list[Call] = field(default_factory=list)
    softmaxes: int = 0


class ByHand:
    """Pairs the softmax of each attention module with the product it came from."""

    def __init__(self) -> None:
        self._open: list[_Pass] = []
        self._scales: dict[int, Tensor] = {}

    def begin(self, module: nn.Module) -> None:
        """An attention module starts to compute."""
        self._open.append(_Pass(module))

    def end(self, module: nn.Module) -> Call | None:
        """It is done: what it computed, if that was one attention.

        Raises:
            CaptureError: it called softmax more than once, so that no one of them is its attention.
        """
        done = self._open.pop()
        if done.softmaxes > 1:
            raise CaptureError(
                f"{type(module).__name__} takes {done.softmaxes} softmaxes in one pass, so that none of them alone is "
                "its attention (a product of several, as by landmarks, has rows of either sign)"
            )
        return done.found[0] if done.found else None

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Look at one torch function called inside the attention module that began last."""
        if not self._open:
            return
        now = self._open[-1]
        if func in _SOFTMAXES:
            logits = _over_keys(args, kwargs)
            if logits is not None:
                now.softmaxes += 1
                self._softmax(now, _four_axes(logits, now.module))
        elif (product := _operands(func, args, kwargs)) is not None:
            now.products.append(product)

    def _softmax(self, now: _Pass, logits: Tensor | None) -> None:
        if logits is None:
            return
        batch, heads, rows, keys = logits.shape
        for left, right in now.products:  # content comes first, positions later: of several, the first that fits
            product = (*torch.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])
            if product[-2:] != (rows, keys) or torch.Size(product).numel() != logits.numel():
                continue
            query = left.expand(*product[:-2], -1, -1).reshape(batch, heads, rows, -1)
            key = right.expand(*product[:-2], -1, -1).mT.reshape(batch, heads, keys, -1)
            now.products = []
            now.found.append(self._described(now.module, logits.detach(), query.detach(), key.detach()))
            return

    def _described(self, module: nn.Module, logits: Tensor, query: Tensor, key: Tensor) -> Call:
        dtype = query.dtype
        logits, query, key = (t.float() if t.dtype.itemsize < 4 else t for t in (logits, query, key))
        allow = logits > (logits.amax(-1, keepdim=True) - UNSEEN).clamp_min(-9 * UNSEEN)
        close = CLOSE if dtype.itemsize >= 4 else 1000 * CLOSE
        scales = self._scales_of(module, logits, query, key, allow)
        found = _with_scales(logits, query, key, scales, allow, close)
        if found.rest is not None and found.rest.shape[2] > 1:  # what differs from query to query misled the fit
            usual = (torch.full_like(scales, query.shape[-1] ** -0.5), torch.ones_like(scales))
            others = [_with_scales(logits, query, key, one, allow, close) for one in usual]
            found = min((found, *others), key=lambda one: 0 if one.rest is None else one.rest.numel())
        is_causal, mask = simplest(allow)
        return Call(
            module=module,
            query=found.query.to(dtype),
            key=key.to(dtype),
            scale=found.scale,
            is_causal=is_causal,
            mask=mask,
            bias=None if found.rest is None else found.rest.to(dtype),
        )

    def _scales_of(self, module: nn.Module, logits: Tensor, query: Tensor, key: Tensor, allow: Tensor) -> Tensor:
        """(H,) float64: the slope of each head's logits against its products, from the change of both between rows.

        A key's bias cancels in that difference. One row alone (a step of generation) uses the scale found before.
        """
        if logits.shape[2] == 1:
            usual = torch.full((logits.shape[1],), query.shape[-1] ** -0.5, dtype=torch.float64, device=query.device)
            return self._scales.get(id(module), usual)
        few = slice(-ROWS, None)
        product = (query[:, :, few].double() @ key.double().mT).diff(dim=2)
        both = allow[:, :, few]
        both = both[:, :, 1:] & both[:, :, :-1]
        rise = logits[:, :, few].double().diff(dim=2).masked_fill(~both, 0.0)
        run = product.masked_fill(~both, 0.0)
        size = (run * run).sum((0, 2, 3))
        scales = torch.where(size > 0, (rise * run).sum((0, 2, 3)) / size, query.shape[-1] ** -0.5)
        self._scales[id(module)] = scales
        return scales


def _over_keys(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The logits of a softmax over its last axis, of three axes or more; None for another kind of softmax."""
    given = dict(zip(("input", "dim"), args, strict=False)) | kwargs
    logits, axis = given.get("input"), given.get("dim")
    if not isinstance(logits, Tensor) or logits.dim() < 3 or axis not in (-1, logits.dim() - 1):
        return None
    return logits


def _four_axes(logits: Tensor, module: nn.Module) -> Tensor | None:
    """(B, H, L, S), where that or (B·H, L, S) is what they are."""
    if logits.dim() != 3:
        return logits if logits.dim() == 4 else None
    heads = next((n for n in (getattr(module, name, None) for name in _HEADS) if isinstance(n, int)), 1)
    return logits.unflatten(0, (-1, heads)) if heads > 0 and logits.shape[0] % heads == 0 else None


def _operands(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
    """What is multiplied, (..., L, D) and (..., D, S); None for a product of another kind."""
    if func in _PRODUCTS:
        return args[0], args[1] if len(args) > 1 else next(iter(kwargs.values()))
    if func in _SUMS_OF_PRODUCTS:
        named = dict(zip(("input", "batch1", "batch2"), args, strict=False)) | kwargs
        return named["batch1"], named["batch2"]
    if func is torch.einsum and len(args) == 3 and isinstance(args[0], str):
        return _einsum(args[0].replace(" ", ""), args[1], args[2])
    return None


def _einsum(equation: str, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor] | None:
    """ "ibnd,jbnd->bnij" as a matrix product: one letter summed over, the last two of the result from either side."""
    inputs, _, result = equation.partition("->")
    first, second = inputs.split(",")
    summed = set(first) & set(second) - set(result)
    if len(summed) != 1 or len(result) < 2 or set(result[:-2]) != set(first) & set(second) & set(result):
        return None
    row, col, depth = result[-2], result[-1], summed.pop()
    if row in second:
        first, second, left, right = second, first, right, left
    if set(first) != {*result[:-2], row, depth} or set(second) != {*result[:-2], col, depth}:
        return None
    return torch.einsum(f"{first}->{result[:-2]}{row}{depth}", left), torch.einsum(
        f"{second}->{result[:-2]}{depth}{col}", right
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """Logits said as scale·QKᵀ + rest; the scales of heads that differ are in the query."""

    query: Tensor
    scale: float
    rest: Tensor | None


def _with_scales(logits: Tensor, query: Tensor, key: Tensor, scales: Tensor, allow: Tensor, close: float) -> _Found:
    if bool((scales - scales[0]).abs().max() <= CLOSE * scales[0].abs()):
        scale = float(scales[0])
    else:  # a scale for each head (Swin V2)
        scale, query = 1.0, query * scales.to(query.dtype)[:, None, None]
    return _Found(query, scale, _rest(logits, query, key, scale, allow, close))


def _rest(logits: Tensor, query: Tensor, key: Tensor, scale: float, allow: Tensor, close: float) -> Tensor | None:
    """R = logits - scale·QKᵀ where not masked: None if it is nothing, (…, 1, S) if it is one number a key, else all."""
    rest = logits.clone()
    for start in range(0, rest.shape[2], ROWS):
        some = slice(start, start + ROWS)
        rest[:, :, some] -= scale * (query[:, :, some] @ key.mT)
    size = logits.masked_fill(~allow, 0.0).abs().max().clamp_min(1.0)
    by_key = rest.masked_fill(~allow, -torch.inf).amax(2, keepdim=True)
    by_key = by_key.masked_fill(by_key == -torch.inf, 0.0)
    if bool((rest - by_key).masked_fill_(~allow, 0.0).abs().max() <= close * size):
        return None if bool(by_key.abs().max() <= close * size) else shared(by_key)
    return shared(rest.masked_fill_(~allow, 0.0), 0.1 * close * float(size)).clone()
