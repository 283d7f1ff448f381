"""Express logits that a model computed itself as scale·QKᵀ + R where not masked, the form of an attention matrix.

R is zero, or one number per key (ALiBi), or a table of B·H·L·S numbers if position terms differ from query to query
(DeBERTa, XLNet). The table is the model's own, so the recorded matrix is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clearhead.capture.call import Call
from clearhead.capture.mask_tables import collapsed, smallest_mask
from clearhead.spec import Attention, repeat_heads

# A logit this far below its row's largest has weight 0 in any dtype: e^-1000 underflows even in float64.
UNSEEN = 1000.0
ROWS = 256
CLOSE = 1e-5  # the largest difference between logits that count as equal, as a share of the largest logit


def allowed(logits: Tensor) -> Tensor:
    """Return where logits (..., S) give any weight. A fully masked row gives none."""
    return logits > (logits.amax(-1, keepdim=True) - UNSEEN).clamp_min(-9 * UNSEEN)


class LogitsFit:
    """Turns logits, queries and keys into a Call; remembers each module's scale for the steps of generation."""

    def __init__(self) -> None:
        self._scales: dict[int, Tensor] = {}

    def call(self, module: nn.Module, logits: Tensor, query: Tensor, key: Tensor) -> Call:
        """Return the Call of logits (B, H, L, S), from query (B, H, L, D) and key (B, H_kv, S, D)."""
        if query.is_complex() or key.is_complex():  # the real part of a complex product is a product of real vectors
            query, key = _as_real(query.conj()), _as_real(key)
        dtype, kept = query.dtype, key
        logits, query, key = (t.detach().float() if t.dtype.itemsize < 4 else t.detach() for t in (logits, query, key))
        key = repeat_heads(key, query.shape[1]) if key.shape[1] < query.shape[1] else key
        allow = allowed(logits)
        close = CLOSE if dtype.itemsize >= 4 else 1000 * CLOSE
        scales = self._scales_of(module, logits, query, key, allow)
        fitted = _with_scales(logits, query, key, scales, allow, close)
        if fitted.rest is not None and fitted.rest.shape[2] > 1:  # terms that differ from query to query misled the fit
            usual = [torch.full_like(scales, query.shape[-1] ** -0.5), torch.ones_like(scales)]
            if logits.shape[2] > 1:
                usual.append(_slopes(logits, query, key, allow, centred=True))
            others = [_with_scales(logits, query, key, scale, allow, close) for scale in usual]
            fitted = min((fitted, *others), key=lambda item: 0 if item.rest is None else item.rest.numel())
        is_causal, mask = smallest_mask(allow)
        return Call(
            module=module,
            query=fitted.query.to(dtype),
            key=kept.detach(),
            attention=Attention.of(
                fitted.scale, is_causal=is_causal, bias=None if fitted.rest is None else fitted.rest.to(dtype)
            ),
            mask=mask,
        )

    def _scales_of(self, module: nn.Module, logits: Tensor, query: Tensor, key: Tensor, allow: Tensor) -> Tensor:
        """Return (H,) float64: the slope of each head's logits against its products, from their changes between rows.

        A key's bias cancels in the difference. A single row (a decode step) uses the scale found before.
        """
        if logits.shape[2] == 1:
            usual = torch.full((logits.shape[1],), query.shape[-1] ** -0.5, dtype=torch.float64, device=query.device)
            before = self._scales.get(id(module), usual)
            return before if before.shape == usual.shape else usual
        scales = self._scales[id(module)] = _slopes(logits, query, key, allow)
        return scales


def _as_real(tensor: Tensor) -> Tensor:
    """Return (…, 2D): the real and imaginary parts of (…, D)."""
    whole = tensor if tensor.is_complex() else torch.complex(tensor, torch.zeros_like(tensor))
    return torch.view_as_real(whole.resolve_conj()).flatten(-2)


def _slopes(logits: Tensor, query: Tensor, key: Tensor, allow: Tensor, *, centred: bool = False) -> Tensor:
    """Return (H,) float64: the slope of each head's logits against its products, from one row to the next.

    Args:
        centred: whether each row may be shifted by a constant, as when its largest logit was subtracted.
    """
    few = slice(-ROWS, None)
    run = (query[:, :, few].double() @ key.double().mT).diff(dim=2)
    both = allow[:, :, few]
    both = both[:, :, 1:] & both[:, :, :-1]
    rise, run = (t.masked_fill(~both, 0.0) for t in (logits[:, :, few].double().diff(dim=2), run))
    if centred:
        count = both.sum(-1, keepdim=True).clamp_min(1)
        rise, run = ((t - t.sum(-1, keepdim=True) / count).masked_fill(~both, 0.0) for t in (rise, run))
    size = (run * run).sum((0, 2, 3))
    return torch.where(size > 0, (rise * run).sum((0, 2, 3)) / size, query.shape[-1] ** -0.5)


@dataclass(frozen=True, slots=True)
class _FittedLogits:
    """Logits as scale·QKᵀ + rest; scales that differ from head to head are multiplied into the query."""

    query: Tensor
    scale: float
    rest: Tensor | None


def _with_scales(
    logits: Tensor, query: Tensor, key: Tensor, scales: Tensor, allow: Tensor, close: float
) -> _FittedLogits:
    if bool((scales - scales[0]).abs().max() <= CLOSE * scales[0].abs()):
        scale = float(scales[0])
    else:  # a scale for each head (Swin V2)
        scale, query = 1.0, query * scales.to(query.dtype)[:, None, None]
    return _FittedLogits(query, scale, _rest(logits, query, key, scale, allow, close))


def _rest(logits: Tensor, query: Tensor, key: Tensor, scale: float, allow: Tensor, close: float) -> Tensor | None:
    """Return R = logits - scale·QKᵀ where not masked: None if zero, (…, 1, S) if one number per key, else the table."""
    rest = logits.clone()
    for start in range(0, rest.shape[2], ROWS):
        rows = slice(start, start + ROWS)
        rest[:, :, rows] -= scale * (query[:, :, rows] @ key.mT)
    size = logits.masked_fill(~allow, 0.0).abs().max().clamp_min(1.0)
    by_key = rest.masked_fill(~allow, -torch.inf).amax(2, keepdim=True)
    by_key = by_key.masked_fill(by_key == -torch.inf, 0.0)
    if bool((rest - by_key).masked_fill_(~allow, 0.0).abs().max() <= close * size):
        return None if bool(by_key.abs().max() <= close * size) else collapsed(by_key)
    rest.masked_fill_(~allow, 0.0)
    by_row = rest.sum(-1, keepdim=True) / allow.sum(-1, keepdim=True).clamp_min(1)
    if bool((rest - by_row).masked_fill_(~allow, 0.0).abs().max() <= close * size):
        return None  # shifting a row by a constant does not change its softmax
    return collapsed(rest, 0.1 * close * float(size)).clone()
