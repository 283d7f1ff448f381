"""The smallest description of an L×S mask or table that a model made."""

import torch
from torch import Tensor


def smallest_mask(allow: Tensor) -> tuple[bool, Tensor | None]:
    """(is_causal, mask): the smallest description of a boolean (B, H, L, S); no L×S table where one can be avoided.

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
    """A view of (B, H, L, S) in which the batch axis, and the head axis, is 1 where all its entries are equal.

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
