"""Which weights are dropped: a counter-based pattern, so that backward and every kernel meet the same one.

Weight (b, h, i, j) is dropped where a 32-bit hash of (seed, b·H + h, i, j) lies under p·2³². Nothing is stored and no
generator state is moved. The mixing function is "lowbias32" of Wellons' hash prospector (2018), whose bias is 0.17.
"""

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF


def mix(x: Tensor) -> Tensor:
    """Scramble 32-bit words held in int64; a bijection on 0..2³²-1.

    >>> mix(torch.tensor([0, 1])).tolist()
    [0, 1753845952]
    """
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _WORD
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _WORD
    return x ^ (x >> 16)


def threshold(p: float) -> int:
    """The hash below which a weight is dropped: p·2³², at most 2³²-1."""
    return min(int(p * 2**32), _WORD)


def kept(seed: int, batch: int, heads: int, rows: range, keys: int, p: float) -> Tensor:
    """Say which weights of a block of rows stay.

    Args:
        seed: any integer; its low 64 bits count.
        batch, heads, keys: B, H, S.
        rows: the query indices of the block, consecutive.
        p: probability that a weight is dropped.
    Returns:
        bool (B, H, len(rows), S), on the CPU, True = kept.
    """
    low, high = seed & _WORD, (seed >> 32) & _WORD
    head = mix(mix(torch.arange(batch * heads, device="cpu") ^ low) ^ high)
    row = mix((head[:, None] + torch.arange(rows.start, rows.stop, device="cpu")) & _WORD)
    bits = mix(row[..., None] ^ mix(torch.arange(keys, device="cpu")))
    return (bits >= threshold(p)).view(batch, heads, len(rows), keys)
