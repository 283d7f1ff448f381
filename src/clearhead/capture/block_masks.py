"""A rule of (batch, head, query, key), as flex attention has them, at every place."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clearhead.capture.mask_tables import smallest_mask

Rule = Callable[..., Tensor]
Sizes = tuple[int, int, int, int]  # (B, H, L, S)


def allowed(block_mask: Any, sizes: Sizes, device: torch.device) -> tuple[bool, Tensor | None]:
    """(is_causal, mask) of a BlockMask, or of its `mask_mod`, over (B, H, L, S)."""
    rule = getattr(block_mask, "mask_mod", block_mask)
    given = getattr(block_mask, "shape", sizes)  # 1 where the mask is the same for every batch element, or head
    batch, heads = (1 if given[axis] == 1 else sizes[axis] for axis in (0, 1))
    return smallest_mask(everywhere(rule, (batch, heads, *sizes[2:]), device).bool())


def everywhere(rule: Rule, sizes: Sizes, device: torch.device) -> Tensor:
    """A rule of (b, h, q, kv) at every place: (B, H, L, S)."""
    for axis in range(4):
        rule = torch.vmap(rule, in_dims=tuple(0 if other == 3 - axis else None for other in range(4)))
    return rule(*(torch.arange(size, device=device) for size in sizes)).expand(sizes)
