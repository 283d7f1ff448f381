"""From a rule to the tensors a kernel takes, as small as they can be."""

from dataclasses import dataclass

import torch
from torch import Tensor

from clearhead.masks.kinds import Causal, Padding, Prefix
from clearhead.masks.mask import And, Mask


@dataclass(frozen=True, slots=True)
class Lowered:
    """A mask for one block of queries × keys, in a kernel's own words.

    Attributes:
        is_causal: top-left causal, on top of `allow`.
        allow: bool, broadcastable to (B, H, L, S); None = everything.
        bias: float, broadcastable to (B, H, L, S); None = nothing.
    """

    is_causal: bool
    allow: Tensor | None
    bias: Tensor | None


def lower(mask: Mask, length: int, keys: int, *, device: torch.device | str | None = None) -> Lowered:
    """Turn a mask into what a kernel takes: `is_causal` where it can, a row of keys where that is all it looks at.

    Memory: O(L·S) where the rule looks at query and key and is not plainly causal; see `is_small`.

    >>> from clearhead import masks
    >>> found = lower(masks.causal() & masks.padding([2, 3]), 3, 3)
    >>> found.is_causal, found.allow.shape
    (True, torch.Size([2, 1, 1, 3]))
    """
    causal, rest = split_causal(mask.allow)
    allow = None if rest is None else rest.block(range(length), range(keys), device=device)
    bias = None if mask.bias is None else mask.bias.bias_block(range(length), range(keys), device=device)
    return Lowered(causal, allow, bias)


def is_small(mask: Mask) -> bool:
    """Whether lowering the mask needs no L×S tensor."""
    _, rest = split_causal(mask.allow)
    return mask.bias is None and (rest is None or all(isinstance(part, Padding | Prefix) for part in _factors(rest)))


def split_causal(mask: Mask | None) -> tuple[bool, Mask | None]:
    """Take a top-left causal factor out of a mask: (was there one, the rest)."""
    if mask is None:
        return False, None
    rest: Mask | None = None
    found = False
    for part in _factors(mask):
        if isinstance(part, Causal) and isinstance(part.offset, int) and part.offset == 0:
            found = True
        else:
            rest = part if rest is None else And(rest, part)
    return (found, rest) if found else (False, mask)


def _factors(mask: Mask) -> list[Mask]:
    return [*_factors(mask.left), *_factors(mask.right)] if isinstance(mask, And) else [mask]
