"""How query heads share key heads (grouped-query attention, Ainslie et al. 2023)."""

from torch import Tensor


def divide_heads(heads: int, kv_heads: int) -> int:
    """Return how many query heads share a key head: 1 if there are no heads, -1 if kv_heads does not divide heads.

    >>> divide_heads(6, 3), divide_heads(0, 0), divide_heads(0, 3), divide_heads(6, 4), divide_heads(6, 0)
    (2, 1, 0, -1, -1)
    """
    if kv_heads == 0:
        return 1 if heads == 0 else -1
    return heads // kv_heads if heads % kv_heads == 0 else -1


def repeat_heads(key: Tensor, heads: int) -> Tensor:
    """Return keys or values (B, H_kv, S, D) with each head repeated for its query heads, (B, H, S, D)."""
    return key if key.shape[1] == heads else key.repeat_interleave(divide_heads(heads, key.shape[1]), dim=1)
