"""Attention from the equation, in float64, dense. Imports nothing of ours: what our kernels are judged by."""

import torch
from torch import Tensor


def logits(query, key, *, scale, is_causal=False, allow=None, bias=None, softcap=None) -> Tensor:
    """(B, H, L, S): scaled, capped, biased, masked with -inf; before the softmax. Causal is top-left."""
    query, key = query.double(), key.double()
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    out = torch.einsum("bhld,bhsd->bhls", query, key) * scale
    if softcap is not None:
        out = softcap * torch.tanh(out / softcap)
    if bias is not None:
        out = out + bias.double()
    may = torch.ones(out.shape, dtype=torch.bool)
    if allow is not None:
        may = may & allow
    if is_causal:
        may = may & torch.ones(out.shape[-2:], dtype=torch.bool).tril()
    return torch.where(may, out, -torch.inf)


def lse(logits: Tensor, sinks=None) -> Tensor:
    """(B, H, L): log of the sum of exp(logits), and of exp(sink); -inf for an empty row."""
    if sinks is not None:
        column = sinks.double()[None, :, None, None].expand(*logits.shape[:-1], 1)
        logits = torch.cat([logits, column], dim=-1)
    if logits.shape[-1] == 0:
        return torch.full(logits.shape[:-1], -torch.inf, dtype=torch.float64)
    top = logits.amax(-1, keepdim=True).detach()
    top = torch.where(torch.isinf(top), 0.0, top)
    total = (logits - top).exp().sum(-1)
    empty = total == 0
    return torch.where(empty, -torch.inf, torch.where(empty, 1.0, total).log() + top[..., 0])


def weights(logits: Tensor, lse: Tensor) -> Tensor:
    """(B, H, L, S): after the softmax; a row of zeros where nothing may be attended."""
    safe = torch.where(lse == -torch.inf, 0.0, lse)
    return torch.exp(logits - safe[..., None])


def attention(query, key, value, *, sinks=None, keep=None, **options) -> tuple[Tensor, Tensor]:
    """Output (B, H, L, D_v) and lse (B, H, L), float64, differentiable. `keep` multiplies the weights."""
    x = logits(query, key, **options)
    total = lse(x, sinks)
    w = weights(x, total)
    if keep is not None:
        w = w * keep
    value = value.double().repeat_interleave(query.shape[1] // value.shape[1], dim=1)
    return torch.einsum("bhls,bhse->bhle", w, value), total
