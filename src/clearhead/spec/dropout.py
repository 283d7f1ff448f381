"""The dropout pattern: counter-based, the same in every kernel and in forward and backward.

Weight (b, h, i, j) is dropped where a 32-bit hash of (seed, b·H + h, query position, key position) is under p·2³². No
pattern is stored and no generator state moves. The mixing function is "lowbias32" of Wellons' hash prospector (2018),
whose bias is 0.17.
"""

import torch
from torch import Tensor

from clearhead.spec.attention import Attention

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
    """Return the hash below which a weight is dropped: p·2³², at most 2³²-1."""
    return min(int(p * 2**32), _WORD)


def head_words(attention: Attention, heads: int, device: torch.device) -> Tensor:
    """Return the hash of the seed and each of B·H heads, from which the hashes of rows and weights derive: int64."""
    seed = int(attention.seed)
    low, high = seed & _WORD, (seed >> 32) & _WORD
    return mix(mix(torch.arange(heads, device=device) ^ low) ^ high)


def kept(attention: Attention, full: tuple[int, int, int, int]) -> Tensor:
    """Return which weights of an attention over (B, H, L, S) are kept: bool of that shape, on the CPU.

    Example: the pattern of some rows and keys is a part of the whole pattern.
        >>> whole = Attention(dropout_p=0.5, seed=7)
        >>> part = whole.part(slice(2, 5), slice(1, 4))
        >>> torch.equal(kept(part, (1, 2, 3, 3)), kept(whole, (1, 2, 6, 6))[:, :, 2:5, 1:4])
        True
    """
    batch, heads, length, keys = full
    head = head_words(attention, batch * heads, torch.device("cpu"))
    row = mix((head[:, None] + torch.arange(length, device="cpu") + attention.first_query) & _WORD)
    key = mix((torch.arange(keys, device="cpu") + attention.first_key) & _WORD)
    bits = mix(row[..., None] ^ key)
    return (bits >= threshold(attention.dropout_p)).view(full)
