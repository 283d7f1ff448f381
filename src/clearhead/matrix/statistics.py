"""Exact numbers about rows and columns, from forward passes where an identity allows, else one pass of blocks."""

from collections.abc import Callable

import torch
from torch import Tensor

from clearhead.matrix import products
from clearhead.matrix.logits import NEG_INF, Block, Logits, blocks, finite


def rowwise(logits: Logits, reduce: Callable[[Block], tuple[Tensor, ...]], *, least: int = 1) -> tuple[Tensor, ...]:
    """Reduce every row: `reduce` maps a block to tensors (heads, rows, ...); each is joined to (B, H, L, ...)."""
    batches = logits.shape[0]
    parts: dict[tuple[int, int], list[tuple[Tensor, ...]]] = {}
    for block in blocks(logits, least=least):
        parts.setdefault((block.batch, block.heads.start), []).append(reduce(block))
    starts = sorted({head for _, head in parts})

    def join(which: int) -> Tensor:
        rows = {place: torch.cat([piece[which] for piece in pieces], dim=1) for place, pieces in parts.items()}
        return torch.stack([torch.cat([rows[batch, head] for head in starts]) for batch in range(batches)])

    return tuple(join(which) for which in range(len(next(iter(parts.values()))[0])))


def entropy(logits: Logits, lse: Tensor) -> Tensor:
    """(B, H, L), nats: -Σⱼ a·log a. Where logits are plain products, Σⱼ a·logit = s·qᵢ·(A@K)ᵢ: one forward pass."""
    if logits.bilinear:
        mean_key, _, mass = products.forward(logits, logits.key)
        expected = logits.scale * (logits.query * mean_key).sum(-1)
        return (mass * finite(lse) - expected).clamp_min(0.0)

    def reduce(block: Block) -> tuple[Tensor, ...]:
        surprise = lse[block.batch, block.heads, block.rows].unsqueeze(-1) - block.logits
        return ((block.weights(lse) * surprise.masked_fill(block.logits == NEG_INF, 0.0)).sum(-1),)

    return rowwise(logits, reduce)[0]


def received(logits: Logits, lse: Tensor) -> Tensor:
    """(B, H, S): Σᵢ aᵢⱼ."""
    ones = logits.query.new_ones(*logits.shape[:3], 1)
    return products.transposed(logits, lse, ones).squeeze(-1)


def topk(logits: Logits, lse: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest weights of each row and the keys they stand at, both (B, H, L, k), largest first."""

    def reduce(block: Block) -> tuple[Tensor, ...]:
        return tuple(block.logits.topk(k, dim=-1))

    best, keys = rowwise(logits, reduce, least=k)
    return torch.exp(best - finite(lse).unsqueeze(-1)), keys


def mean_distance(logits: Logits, lse: Tensor, offset: int) -> Tensor:
    """(B, H, L), positions: Σⱼ aᵢⱼ·|i + offset - j|."""

    def reduce(block: Block) -> tuple[Tensor, ...]:
        device = block.logits.device
        rows = torch.arange(block.rows.start, block.rows.stop, device=device) + offset
        cols = torch.arange(block.cols.start, block.cols.stop, device=device)
        return ((block.weights(lse) * (rows[:, None] - cols).abs()).sum(-1),)

    return rowwise(logits, reduce)[0]
