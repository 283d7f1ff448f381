"""Masks that compose: rules for where queries may attend. True always means: may attend. See README.md."""

import torch
from torch import Tensor

from clearhead.arguments import checked
from clearhead.masks.bias import Bias
from clearhead.masks.kinds import Alibi, Causal, Dense, Document, Padding, Prefix, Relative, SlidingWindow
from clearhead.masks.lower import is_small, lower
from clearhead.masks.mask import Mask
from clearhead.spec import BlockState

__all__ = [
    "Bias",
    "BlockState",
    "Mask",
    "alibi",
    "causal",
    "document",
    "from_dense",
    "is_small",
    "lower",
    "padding",
    "prefix",
    "relative",
    "sliding_window",
]


@checked()
def causal(offset: int | Tensor = 0) -> Mask:
    """Query i may attend keys 0..i + offset. Offset 0 is top-left, as torch's is_causal; S - L is bottom-right.

    Args:
        offset: one for all, or integers (B,), one a batch entry, as caches of different fill need.

    >>> causal(offset=1).dense(2, 3)[0, 0].tolist()
    [[True, True, False], [True, True, True]]
    """
    return Causal(offset)


def sliding_window(size: int) -> Mask:
    """Query i may attend keys closer than `size` positions, before and after; `& causal()` leaves those before.

    >>> (causal() & sliding_window(2)).dense(3)[0, 0].tolist()
    [[True, False, False], [True, True, False], [False, True, True]]
    """
    return SlidingWindow(size)


def prefix(size: int) -> Mask:
    """Every query may attend the first `size` keys.

    >>> prefix(1).dense(2)[0, 0].tolist()
    [[True, False], [True, False]]
    """
    return Prefix(size)


@checked()
def padding(lengths: Tensor | list[int]) -> Mask:
    """Batch entry b has lengths[b] keys; the rest is padding, which nobody may attend.

    >>> padding([1, 2]).dense(1, 2)[:, 0, 0].tolist()
    [[True, False], [True, True]]
    """
    return Padding(torch.as_tensor(lengths))


@checked()
def document(ids: Tensor | list[int], key_ids: Tensor | None = None) -> Mask:
    """A query may attend the keys that carry its own id: several documents packed in one row.

    Args:
        ids: integers (L,) or (B, L), the id at each query position; at each key position too, unless `key_ids` says.

    >>> document([0, 0, 1]).dense(3)[0, 0].tolist()
    [[True, True, False], [True, True, False], [False, False, True]]
    """
    return Document(torch.as_tensor(ids), key_ids)


@checked()
def from_dense(tensor: Tensor) -> Mask:
    """A bool tensor as a mask, True = may attend; (L, S), (H, L, S) or (B, H, L, S), axes of size 1 broadcast.

    >>> from_dense(torch.tensor([[True, False]])).dense(1, 2)[0, 0].tolist()
    [[True, False]]
    """
    return Dense(tensor)


@checked()
def alibi(slopes: Tensor) -> Bias:
    """Add -slopes[h]·|q - k| to the logits. Source: Press et al. 2022. Gradients flow to the slopes.

    >>> print((causal() & alibi(torch.tensor([0.5]))).bias)  # doctest: +ELLIPSIS
    alibi(1 slopes), queries down, keys right
    ...
    """
    return Alibi(slopes)


@checked()
def relative(table: Tensor) -> Bias:
    """Add table[h, k - q + R] to the logits, for distances -R..R; beyond, the ends count. Gradients flow to it.

    Args:
        table: (H, 2·R + 1), or (2·R + 1,) for all heads. Source: Shaw et al. 2018; Raffel et al. 2020 (as a bias).

    >>> relative(torch.tensor([1.0, 0.0, 2.0])).bias_block(range(2), range(2))[0, 0].tolist()
    [[0.0, 2.0], [1.0, 0.0]]
    """
    return Relative(table)
