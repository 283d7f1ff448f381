"""Describe flex attention: block masks as masks, and score functions as a mask, a bias and a soft cap if possible.

A `score_mod` is any function of a logit and its position. It is evaluated at a few logits: for a logit s it must return
s + b, or softcap·tanh(s / softcap) + b, with one b for each position (-inf: may not attend). Calls with any other
function are listed as missed.
"""

from typing import Any

import torch
from torch import Tensor, nn

from clearhead.capture.call import Call, attention_of
from clearhead.capture.mask_tables import Rule, Sizes, block_mask_table, collapsed, evaluate
from clearhead.errors import CaptureError


def is_flex(func: Any) -> bool:
    """Whether a function is the operator behind `flex_attention`."""
    return getattr(func, "__name__", None) == "flex_attention" and isinstance(func, torch._ops.HigherOrderOperator)


def describe(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Call:
    """Return the Call of the operator (query, key, value, score_mod, block_mask, scale, …) with output (B, H, L, D_v).

    Raises:
        CaptureError: the score function is not of this form.
    """
    query, key, value, score_mod, block_mask, scale = args[:6]
    sizes = (*query.shape[:3], key.shape[2])
    is_causal, mask = block_mask_table(block_mask[-1], sizes, query.device)
    softcap, bias = _score(score_mod, sizes, query.device)
    return Call(
        module=module,
        query=query,
        key=key,
        attention=attention_of(query, scale, is_causal=is_causal, bias=bias, softcap=softcap),
        mask=mask,
        value=value,
        out=out.transpose(1, 2),
    )


def _score(score_mod: Rule, sizes: Sizes, device: torch.device) -> tuple[float | None, Tensor | None]:
    """Return (softcap, bias) of a score function; the bias is -inf where it masks."""

    def of(logit: float) -> Tensor:
        given = torch.tensor(logit, device=device)
        return evaluate(lambda *place: score_mod(given, *place), sizes, device).float()

    bias = of(0.0)
    masked = bias == -torch.inf
    rise = {logit: (of(logit) - bias).masked_fill(masked, 0.0) for logit in (1e6, 1.7, -2.9)}
    top = float(rise[1e6].max())
    softcap = None if top > 5e5 or top <= 0 else top

    def expected(logit: float) -> Tensor:
        value = torch.tensor(logit, device=device)
        capped = value if softcap is None else softcap * torch.tanh(value / softcap)
        return torch.where(masked, 0.0, capped)

    close = 1e-5 * max(1.0, float(bias.masked_fill(masked, 0.0).abs().max()))
    if not all(bool((rise[logit] - expected(logit)).abs().max() <= close) for logit in (1.7, -2.9)):
        raise CaptureError(
            "its score_mod is not a bias, mask or soft cap, so that its weights are not a softmax of those"
        )
    bias = collapsed(bias)
    return softcap, bias.clone() if bool((bias != 0).any()) else None
