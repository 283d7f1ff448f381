"""Composable masks: rules for where queries may attend. True always means "may attend". See README.md."""

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
    """Return the causal mask: query i may attend keys 0..i + offset.

    Offset 0 aligns it top-left, as torch's is_causal does; S - L aligns it bottom-right.

    Args:
        offset: a number, or integers (B,) with one offset per batch entry, for KV caches filled to different lengths.

    >>> causal(offset=1).dense(2, 3)[0, 0].tolist()
    [[True, True, False], [True, True, True]]
    """
    return Causal(offset)


def sliding_window(size: int) -> Mask:
    """Return a sliding-window mask: query i may attend keys less than `size` positions away, before and after.

    Combine it with `& causal()` to keep only the keys before.

    >>> (causal() & sliding_window(2)).dense(3)[0, 0].tolist()
    [[True, False, False], [True, True, False], [False, True, True]]
    """
    return SlidingWindow(size)


def prefix(size: int) -> Mask:
    """Return a prefix mask: every query may attend the first `size` keys.

    >>> prefix(1).dense(2)[0, 0].tolist()
    [[True, False], [True, False]]
    """
    return Prefix(size)


@checked()
def padding(lengths: Tensor | list[int]) -> Mask:
    """Return a padding mask: batch entry b has lengths[b] keys; no query may attend the rest.

    >>> padding([1, 2]).dense(1, 2)[:, 0, 0].tolist()
    [[True, False], [True, True]]
    """
    return Padding(torch.as_tensor(lengths))


@checked()
def document(ids: Tensor | list[int], key_ids: Tensor | None = None) -> Mask:
    """Return the mask of several documents packed in one row: a query may attend the keys with its own id.

    Args:
        ids: integers (L,) or (B, L), the id at each query position.
        key_ids: integers (S,) or (B, S), the id at each key position; default `ids`.

    >>> document([0, 0, 1]).dense(3)[0, 0].tolist()
    [[True, True, False], [True, True, False], [False, False, True]]
    """
    return Document(torch.as_tensor(ids), key_ids)


@checked()
def from_dense(tensor: Tensor) -> Mask:
    """Return a bool tensor as a mask, True = may attend; (L, S), (H, L, S) or (B, H, L, S), axes of size 1 broadcast.

    >>> from_dense(torch.tensor([[True, False]])).dense(1, 2)[0, 0].tolist()
    [[True, False]]
    """
    return Dense(tensor)


@checked()
def alibi(slopes: Tensor) -> Bias:
    """Return the ALiBi bias, -slopes[h]·|q - k| added to the logits. Source: Press et al. 2022.

    Gradients flow to the slopes.

    >>> print((causal() & alibi(torch.tensor([0.5]))).bias)  # doctest: +ELLIPSIS
    alibi(1 slopes), queries down, keys right
    ...
    """
    return Alibi(slopes)


@checked()
def relative(table: Tensor) -> Bias:
    """Return a relative-position bias, table[h, k - q + R] added to the logits.

    Distances beyond -R..R use the ends of the table. Gradients flow to the table.
    Source: Shaw et al. 2018; Raffel et al. 2020 (as a bias).

    Args:
        table: (H, 2·R + 1), or (2·R + 1,) for all heads.

    >>> relative(torch.tensor([1.0, 0.0, 2.0])).bias_block(range(2), range(2))[0, 0].tolist()
    [[0.0, 2.0], [1.0, 0.0]]
    """
    return Relative(table)
