"""Compare two matrices over the same keys row by row: two heads, or the same head in two models."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from clearhead.errors import ShapeError
from clearhead.matrix import products
from clearhead.matrix.logits import NEG_INF, Logits, blocks, finite
from clearhead.spec import repeat_heads


def kl(ours: Logits, our_lse: Tensor, other: Logits, other_lse: Tensor) -> Tensor:
    """Return the KL divergence Σⱼ aⱼ·log(aⱼ / bⱼ), (B, H, L), in nats; infinite where b is 0 and a is not."""
    least = 0.0 if ours.attention.sinks is None else NEG_INF
    return kl_of_keys(ours, our_lse, other, other_lse).clamp_min(least)


def kl_of_keys(ours: Logits, our_lse: Tensor, other: Logits, other_lse: Tensor) -> Tensor:
    """Return that sum over some of a row's keys, which may be negative; the lse are those of whole rows.

    If both matrices have bilinear logits and the same mask, Σⱼ a·logit_b = s′·q′ᵢ·(A@K′)ᵢ: two forward passes.
    """
    if ours.attention.is_bilinear and other.attention.is_bilinear and _same_mask(ours, other):
        own, _, mass = products.forward(ours, ours.key, our_lse)
        foreign = products.forward(ours, repeat_heads(other.key, ours.shape[1]), our_lse)[0]
        gain = _scaled(ours, own) - _scaled(other, foreign)
        return gain - mass * (finite(our_lse) - finite(other_lse))

    def reduce(a: Tensor, b: Tensor, log_ratio: Tensor) -> Tensor:
        return (a * log_ratio.masked_fill(a == 0, 0.0)).sum(-1)

    return _both(ours, our_lse, other, other_lse, reduce)


def inner(ours: Logits, our_lse: Tensor, other: Logits, other_lse: Tensor) -> Tensor:
    """Return the inner product Σⱼ aⱼ·bⱼ, (B, H, L).

    For bilinear logits, a·b is a softmax of [s·q, s′·q′]·[k, k′], up to its normaliser.
    """
    if ours.attention.is_bilinear and other.attention.is_bilinear and _same_mask(ours, other):
        heads = ours.shape[1]
        joined = Logits(
            query=torch.cat([logits.attention.scale_query(logits.query) for logits in (ours, other)], dim=-1),
            key=torch.cat([repeat_heads(ours.key, heads), repeat_heads(other.key, heads)], dim=-1),
            attention=replace(ours.attention, sinks=None).unscaled(),
        )
        return torch.exp(products.normaliser(joined) - finite(our_lse) - finite(other_lse))
    return _both(ours, our_lse, other, other_lse, lambda a, b, _: (a * b).sum(-1))


def check(ours: Logits, other: Logits) -> None:
    """Raise ShapeError unless both matrices have the same shape."""
    if ours.shape != other.shape:
        raise ShapeError(
            f"matrices are compared row by row, so they need one shape: got {ours.shape} and {other.shape}, axes "
            "B,H,L,S. Select the heads to compare with .heads(...)."
        )


def _same_mask(ours: Logits, other: Logits) -> bool:
    if ours.attention.reach != other.attention.reach or ours.attention.rule is not other.attention.rule:
        return False
    allow, others = ours.attention.allow, other.attention.allow
    if allow is None or others is None or allow is others:
        return allow is others
    return allow.shape == others.shape and bool(torch.equal(allow, others))


def _scaled(logits: Logits, mean_key: Tensor) -> Tensor:
    """Return the scaled product of each query with its own vector, (B, H, L)."""
    return (logits.query * logits.attention.multiplier * mean_key).sum(-1)


def _both(
    ours: Logits, our_lse: Tensor, other: Logits, other_lse: Tensor, reduce: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """Reduce both matrices in one blockwise pass, (B, H, L); `reduce` gets a, b and log(a / b), (heads, rows, S)."""
    if 0 in ours.shape[:3]:
        return ours.query.new_zeros(ours.shape[:3])
    batches = ours.shape[0]
    parts: dict[tuple[int, int], list[Tensor]] = {}
    for block in blocks(ours, least=ours.shape[3]):
        theirs = other.block(block.batch, block.heads, block.rows, block.cols)
        where = (block.batch, block.heads, block.rows)
        log_a = block.logits - finite(our_lse[where]).unsqueeze(-1)
        log_b = theirs - finite(other_lse[where]).unsqueeze(-1)
        parts.setdefault((block.batch, block.heads.start), []).append(reduce(log_a.exp(), log_b.exp(), log_a - log_b))
    starts = sorted({head for _, head in parts})
    return torch.stack(
        [torch.cat([torch.cat(parts[batch, head], dim=1) for head in starts]) for batch in range(batches)]
    )
