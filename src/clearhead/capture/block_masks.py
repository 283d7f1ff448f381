"""Flex attention's functions of (batch, head, query, key), evaluated as tensors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clearhead.capture.mask_tables import smallest_mask

Rule = Callable[..., Tensor]
Sizes = tuple[int, int, int, int]  # (B, H, L, S)


def block_mask_table(block_mask: Any, sizes: Sizes, device: torch.device) -> tuple[bool, Tensor | None]:
    """(is_causal, mask) of a BlockMask, or of its `mask_mod`, over (B, H, L, S)."""
    rule = getattr(block_mask, "mask_mod", block_mask)
    given = getattr(block_mask, "shape", sizes)  # 1 where the mask is the same for every batch element, or head
    batch, heads = (1 if given[axis] == 1 else sizes[axis] for axis in (0, 1))
    return smallest_mask(evaluate(rule, (batch, heads, *sizes[2:]), device).bool())


def evaluate(rule: Rule, sizes: Sizes, device: torch.device) -> Tensor:
    """The (B, H, L, S) values of a function of (b, h, q, kv)."""
    for axis in range(4):
        rule = torch.vmap(rule, in_dims=tuple(0 if other == 3 - axis else None for other in range(4)))
    return rule(*(torch.arange(size, device=device) for size in sizes)).expand(sizes)
