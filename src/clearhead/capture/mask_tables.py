"""Find the smallest description of a model's L×S mask or table, given as a tensor or as flex attention's function."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Rule = Callable[..., Tensor]  # of (batch, head, query, key)
Sizes = tuple[int, int, int, int]  # (B, H, L, S)


def block_mask_table(block_mask: Any, sizes: Sizes, device: torch.device) -> tuple[bool, Tensor | None]:
    """Return (is_causal, mask) of a BlockMask, or of its `mask_mod`, over (B, H, L, S)."""
    rule = getattr(block_mask, "mask_mod", block_mask)
    given = getattr(block_mask, "shape", sizes)  # 1 where the mask is the same for every batch element, or head
    batch, heads = (1 if given[axis] == 1 else sizes[axis] for axis in (0, 1))
    return smallest_mask(evaluate(rule, (batch, heads, *sizes[2:]), device).bool())


def evaluate(rule: Rule, sizes: Sizes, device: torch.device) -> Tensor:
    """Return the (B, H, L, S) values of a function of (b, h, q, kv)."""
    for axis in range(4):
        rule = torch.vmap(rule, in_dims=tuple(0 if other == 3 - axis else None for other in range(4)))
    return rule(*(torch.arange(size, device=device) for size in sizes)).expand(sizes)


def smallest_mask(allow: Tensor) -> tuple[bool, Tensor | None]:
    """Return (is_causal, mask), the smallest description of a boolean (B, H, L, S), if possible without an L×S table.

    >>> smallest_mask(torch.ones(1, 2, 3, 3, dtype=torch.bool).tril())
    (True, None)
    """
    allow = collapsed(allow)
    rows, keys = allow.shape[2:]
    by_key = allow.any(2, keepdim=True)
    kept = None if bool(by_key.all()) else by_key
    if bool((allow == by_key).all()):
        return False, kept
    earlier = torch.ones(rows, keys, dtype=torch.bool, device=allow.device).tril()
    if bool((allow == (by_key & earlier)).all()):
        return True, None if bool(by_key[..., :rows].all()) else kept  # no query attends keys past the last query
    return False, allow.clone()


def collapsed(table: Tensor, close: float = 0.0) -> Tensor:
    """Return a view of (B, H, L, S) in which the batch or head axis has size 1 if all its entries are equal.

    Args:
        close: the largest difference between numbers that count as equal.

    >>> collapsed(torch.zeros(2, 3, 5, 7)).shape
    torch.Size([1, 1, 5, 7])
    """
    for axis in (0, 1):
        first = table.narrow(axis, 0, 1)
        alike = bool((table == first).all()) if close == 0.0 else bool(((table - first).abs() <= close).all())
        table = first if alike else table
    return table
