"""Lower a mask, which is a rule, to the attention a kernel takes: a band, slopes and tensors as small as possible."""

import torch
from torch import Tensor

from clearhead.masks.bias import Bias, ShiftedBias, Sum
from clearhead.masks.kinds import Alibi, Causal, Dense, Padding, Prefix, SlidingWindow
from clearhead.masks.mask import And, Mask, Not, Shifted
from clearhead.spec import EVERYWHERE, Attention, Band
from clearhead.spec.band import intersect, shift


def lower(mask: Mask, length: int, keys: int, *, device: torch.device | str | None = None) -> Attention:
    """Return the attention that a mask describes: bands and ALiBi become numbers and slopes, the rest tensors.

    A part that depends on keys alone becomes a tensor with one row.

    Memory: O(L·S) where a part of the rule depends on query and key and is not a band; see `is_small`.

    >>> from clearhead import masks
    >>> attention = lower(masks.causal() & masks.sliding_window(2) & masks.padding([2, 3]), 3, 3)
    >>> attention.band, attention.allow.shape
    ((-1, 0), torch.Size([2, 1, 1, 3]))
    """
    reach, rest = split_reach(mask.allow)
    allow = None if rest is None else rest.block(range(length), range(keys), device=device)
    slopes, offset, added = split_alibi(mask.bias)
    bias = None if added is None else added.bias_block(range(length), range(keys), device=device)
    slopes = slopes if slopes is None or device is None else slopes.to(device)
    return Attention.of(reach=reach, allow=allow, bias=bias, alibi=slopes, first_query=offset)


def is_small(mask: Mask) -> bool:
    """Return whether lowering the mask needs no L×S tensor."""
    _, rest = split_reach(mask.allow)
    if split_alibi(mask.bias)[2] is not None:
        return False
    return rest is None or all(_depends_on_keys_alone(part) for part in _factors(rest))


def _depends_on_keys_alone(mask: Mask) -> bool:
    return isinstance(mask, Padding | Prefix) or (isinstance(mask, Dense) and mask.tensor.shape[2] == 1)


def split_reach(mask: Mask | None) -> tuple[Band, Mask | None]:
    """Split a mask into (the band of its factors that are bands, the other factors).

    >>> from clearhead import masks
    >>> split_reach(~masks.causal(offset=-3) & masks.prefix(5))
    ((-2, None), prefix(5))
    """
    reach, rest = EVERYWHERE, None
    for part in [] if mask is None else _factors(mask):
        own = _reach(part)
        if own is not None:
            reach = intersect(reach, own)
        else:
            rest = part if rest is None else And(rest, part)
    return reach, rest


def split_alibi(bias: Bias | None) -> tuple[Tensor | None, int, Bias | None]:
    """Split a bias into (ALiBi slopes, the position of query 0, the rest).

    Slopes of several ALiBi terms are added if their positions equal the first one's; other terms go to the rest.

    >>> from clearhead import masks
    >>> split_alibi(masks.alibi(torch.tensor([0.5])).shifted(3).bias)
    (tensor([0.5000]), 3, None)
    """
    slopes, offset, rest = None, 0, None
    for part in _terms(bias):
        own, past = _alibi(part)
        if own is None or (slopes is not None and past != offset):
            rest = part if rest is None else Sum(rest, part)
        else:
            slopes, offset = own if slopes is None else slopes + own, past
    return slopes, offset, rest


def _terms(bias: Bias | None) -> list[Bias]:
    if bias is None:
        return []
    if isinstance(bias, ShiftedBias) and isinstance(bias.inner, Sum):
        return [part.shifted(bias.past) for part in _terms(bias.inner)]
    return [*_terms(bias.left), *_terms(bias.right)] if isinstance(bias, Sum) else [bias]


def _alibi(bias: Bias) -> tuple[Tensor | None, int]:
    if isinstance(bias, ShiftedBias):
        slopes, offset = _alibi(bias.inner)
        return slopes, offset + bias.past
    return (bias.slopes, 0) if isinstance(bias, Alibi) else (None, 0)


def _factors(mask: Mask) -> list[Mask]:
    return [*_factors(mask.left), *_factors(mask.right)] if isinstance(mask, And) else [mask]


def _reach(mask: Mask) -> Band | None:
    """Return the band equivalent to the mask, or None."""
    if isinstance(mask, Causal) and isinstance(mask.offset, int):
        return None, mask.offset
    if isinstance(mask, SlidingWindow):
        return 1 - mask.size, mask.size - 1
    if isinstance(mask, Not) and isinstance(mask.inner, Causal) and isinstance(mask.inner.offset, int):
        return mask.inner.offset + 1, None
    if isinstance(mask, Shifted):
        band = EVERYWHERE
        for part in _factors(mask.inner):
            own = _reach(part)
            if own is None:
                return None
            band = intersect(band, own)
        return shift(band, mask.past)
    return None
