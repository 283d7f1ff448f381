"""The weights of a whole batch, some texts or some rows at a time, each block small enough for a core's cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clearhead import spec
from clearhead.matrix import AttentionMatrix
from clearhead.matrix.logits import Logits
from clearhead.spec import EVERYWHERE, Attention

BLOCK = 2**19  # weights at a time: 2 MiB of float32
MASKED = -1e30  # the logit of a masked key: finite, so that it may be multiplied by its weight
# Logits this far below the largest of their row count as this far: their weights are 2e-35, masked ones too. Farther
# down exp takes eight times as long (MKL, AVX-512).
LEAST = -80.0


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of some texts.

    Attributes:
        texts: which entries of the batch.
        start: the first of the rows.
        weights: (B, H, rows, S), float32 or wider; a masked key has less than 1e-34, a row that may attend nothing 0.
        visible: (B, H or 1, rows), how many keys each row may attend.
        entropy: (B, H, rows), nats: -Σ a·log a.
        maximum: (B, H, rows), the largest weight of each row.
        best: (B, H, rows), float64, its key, the first of equal ones.
    """

    texts: slice
    start: int
    weights: Tensor
    visible: Tensor
    entropy: Tensor
    maximum: Tensor
    best: Tensor


def blocks(matrix: AttentionMatrix) -> Iterator[Block]:
    """Walk the weights of a matrix, texts first and then rows."""
    logits = matrix._logits.wide()
    logits = Logits(logits.query, logits.key, _additive(logits.attention, logits.query.dtype))
    batch, heads, rows, keys = logits.shape
    entries = min(max(BLOCK // max(heads * rows * keys, 1), 1), batch)
    height = rows if entries > 1 else min(max(BLOCK // max(heads * keys, 1), 1), rows)
    for first in range(0, batch, entries):
        stop = min(first + entries, batch)
        part = logits.batch(slice(first, stop))
        for start in range(0, rows, height):
            yield _block(_logits(part, start, min(start + height, rows)), part, slice(first, stop), start)


def _additive(attention: Attention, dtype: torch.dtype) -> Attention:
    """The same with its mask as a part of its bias: adding takes a seventh of the time that masked_fill does."""
    allow, bias = attention.allow, attention.bias
    if allow is None:
        return attention
    bias = torch.zeros(allow.shape, dtype=dtype, device=allow.device) if bias is None else bias
    return attention.change(allow=None, bias=bias.masked_fill(~allow, MASKED))


def _logits(logits: Logits, start: int, stop: int) -> Tensor:
    """(B, H, rows, S): the logits of some rows, all texts and heads at once; MASKED or less where masked."""
    keys = logits.shape[3]
    attention = logits.attention.pairs(slice(start, stop), slice(0, keys))
    query, key = logits.query[:, :, start:stop], logits.key
    if logits.group > 1:
        key = key.repeat_interleave(logits.group, 1)
    scaled = torch.matmul(query * attention.multiplier, key.transpose(-1, -2))
    is_plain = attention.softcap is None and attention.alibi is None and attention.key_bias is None
    if is_plain and attention.band == EVERYWHERE and attention.rule is None:
        return scaled if attention.bias is None else scaled.add_(attention.bias)
    return spec.logits(attention, scaled, torch.arange(start, stop), torch.arange(keys)).clamp_min_(MASKED)


def _block(logits: Tensor, whole: Logits, texts: slice, start: int) -> Block:
    visible = _visible(logits, whole)
    largest = logits.amax(-1, keepdim=True)
    sinks = whole.attention.sinks
    if sinks is not None:
        sink = sinks.to(logits.dtype)[:, None, None]
        largest = torch.maximum(largest, sink)
    below = logits.sub_(largest).clamp_min_(LEAST)
    weights = below.exp()
    mass = weights.sum(-1)
    total = mass if sinks is None else mass + torch.exp(sink - largest).squeeze(-1)
    entropy = (mass * total.log() - below.mul_(weights).sum(-1)) / total
    if sinks is None:
        maximum, best = total.reciprocal(), _best(weights)  # the largest is exp(0) before it is divided
    else:
        maximum, best = weights.amax(-1) / total, weights.argmax(-1).double()
    weights.div_(total.unsqueeze(-1))
    if bool((visible == 0).any()):
        seen = visible > 0
        weights, entropy, maximum = weights * seen.unsqueeze(-1), entropy * seen, maximum * seen
    return Block(texts, start, weights, visible, entropy.clamp_min_(0), maximum, best)


def _visible(logits: Tensor, whole: Logits) -> Tensor:
    """How many keys each row may attend; counted for one head where all heads are masked alike."""
    own = whole.attention
    alike = own.rule is None and (own.bias is None or own.bias.shape[1] == 1)
    counted = logits[:, :1] if alike else logits
    return (counted > MASKED / 2).sum(-1)


def _best(weights: Tensor) -> Tensor:
    """The key whose weight is exp(0), of weights that are not divided yet: a quarter of the time of argmax."""
    peaks = weights.floor()
    batch, heads, rows, keys = peaks.shape
    columns = torch.stack([torch.ones(keys), torch.arange(keys)], -1).to(peaks.dtype).expand(batch, keys, 2)
    count, place = torch.bmm(peaks.view(batch, heads * rows, keys), columns).view(batch, heads, rows, 2).unbind(-1)
    place = place.double()
    ties = count != 1
    if bool(ties.any()):
        place[ties] = weights[ties].argmax(-1).double()
    return place
