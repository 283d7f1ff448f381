"""Sums and single entries of a layer's weights, for all texts, heads and queries. Only short texts' are stored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead import spec
from clearhead.kernels import Problem, Result, Statistics, Wanted, run_with, run_with_weights, second_pass
from clearhead.matrix import AttentionMatrix, indexing, products
from clearhead.matrix.logits import Logits, finite
from clearhead.spec import repeat_heads

DENSE_UP_TO = 256  # tokens: all weights of a layer are then at most 8 times as many numbers as queries of width 32
STRIP = 16  # queries multiplied with their neighbours at once; the fastest of 8 to 32 (width 32, AVX-512)


@dataclass(frozen=True, slots=True)
class Rows:
    """Numbers about each row of the weights, computed in one forward pass.

    Attributes:
        logits: the logits of the matrix, in float32 or wider.
        lse: (B, H, L), the normaliser of each row, sinks included; 0 in an empty row, whose weights are exp(-inf - 0).
        masses: (B, H, L, W), the weight of each row on the keys of each column.
        entropy: (B, H, L), nats: -Σ a·log a.
        maximum: (B, H, L), the largest weight of each row.
        best: (B, H, L), int64, the key of the largest weight; the first of equal ones.
        weights: (B, H, L, L), of short texts; None for longer ones.
    """

    logits: Logits
    lse: Tensor
    masses: Tensor
    entropy: Tensor
    maximum: Tensor
    best: Tensor
    weights: Tensor | None

    @classmethod
    def of(cls, matrix: AttentionMatrix, columns: Tensor) -> Rows:
        """Return the numbers of a matrix.

        Args:
            matrix: (B, H, L, L).
            columns: (B, S, W), 1 where a key is of the kind that the column stands for.
        """
        logits = matrix._logits.wide()
        stored = is_short(logits.shape[2])
        if not stored:  # rows are gathered many times
            logits = Logits(logits.query.contiguous(), logits.key.contiguous(), logits.attention)
        value = columns[:, None].to(logits.query.dtype)
        if logits.attention.rule is None and not logits.has_dense_bias:
            problem = products.problem(logits, value.expand(-1, logits.key.shape[1], -1, -1)).change(
                sinks=logits.attention.sinks
            )
            made = _in_one_pass(problem, Wanted(entropy=True, topk=1), stored)
            if made is not None:
                result, statistics, weights = made
                best, place = statistics.best[..., 0], statistics.best_keys[..., 0]
                return cls(logits, finite(result.lse), result.out, statistics.entropy, best, place, weights)
        largest, keys = matrix.topk(1)
        masses = matrix @ value.expand(-1, logits.shape[1], -1, -1)
        lse = finite(matrix.lse)
        weights = indexing.outer(logits, lse, indexing.everything(logits)) if stored else None
        return cls(logits, lse, masses, matrix.entropy(), largest[..., 0], keys[..., 0], weights)

    def near(self, distance: int) -> Tensor:
        """Return (B, H, L, 2·distance + 1): the weights from each row to the keys within `distance` of it."""
        batch, heads, length, _ = self.logits.shape
        if self.weights is not None:
            near = self.weights.new_zeros(batch, heads, length, 2 * distance + 1)
            for place, offset in enumerate(range(-distance, distance + 1)):
                diagonal = self.weights.diagonal(offset, 2, 3)
                start = max(0, -offset)
                near[:, :, start : start + diagonal.shape[2], place] = diagonal
            return near
        row = torch.arange(length)[:, None]
        key = row + torch.arange(-distance, distance + 1)
        dots = _near_products(self.logits, distance).view(batch, heads, length, -1)
        weights = self._weights(dots, self.lse, torch.arange(batch), row, key.clamp(0, length - 1))
        return weights.masked_fill_((key < 0) | (key >= length), 0.0)

    def between(self, text: Tensor, row: Tensor, key: Tensor) -> Tensor:
        """Return (N, H, R, K): the weights from R rows to K keys of a text, for N texts.

        Args:
            text: (N,).
            row, key: (N, R) and (N, K), positions.
        """
        query = _gathered(self.logits.query, text, row)
        keys = repeat_heads(_gathered(self.logits.key, text, key), self.logits.shape[1])
        lse = _gathered(self.lse[..., None], text, row)[..., 0]
        return self._weights(torch.matmul(query, keys.mT), lse, text, row[:, None, :, None], key[:, None, None])

    def at(self, text: Tensor, row: Tensor, key: Tensor) -> Tensor:
        """Return (N, H, K): the weights from a row to K keys of a short text, for N texts.

        Args:
            text, row: (N,).
            key: (N, K), positions.
        """
        assert self.weights is not None  # noqa: S101 (callers look)
        _, heads, length, _ = self.logits.shape
        first = (text[:, None] * heads + torch.arange(heads)) * length + row[:, None]  # (N, H)
        return self.weights.take(first[..., None] * length + key[:, None])

    def _weights(self, dots: Tensor, lse: Tensor, text: Tensor, row: Tensor, key: Tensor) -> Tensor:
        """Turn some q·k, (N, H, R, K), into weights, in place in `dots`.

        Args:
            lse: (N, H, R), the normalisers of the rows, finite.
            text: (N,).
            row, key: positions of the query and the key, broadcastable to (N, 1, R, K).
        """
        _, heads, length, _ = self.logits.shape
        own, text, head = self.logits.attention, text[:, None, None, None], torch.arange(heads)[:, None, None]

        def taken(table: Tensor) -> Tensor:
            """Return a mask or bias at these queries and keys; of one head if all heads share it."""
            table = spec.four_axes(table)
            of, which = text if table.shape[0] > 1 else torch.zeros_like(text), head[: table.shape[1]]
            return table.expand(-1, -1, length, length)[of, which, row, key]

        bare = own if own.is_bilinear and own.allow is None else own.change(allow=None, bias=None, key_bias=None)
        logits = spec.logits_at(bare, dots.mul_(own.multiplier), text, head, row, key, self.logits.shape)
        for added in (own.bias, own.key_bias):
            if added is not None:
                logits = logits.add_(taken(added))
        if own.allow is not None:  # adding -inf takes a seventh of the time of masked_fill
            allow = taken(own.allow)
            logits = logits.add_(allow.new_zeros(allow.shape, dtype=logits.dtype).masked_fill_(~allow, -torch.inf))
        return logits.sub_(lse[..., None]).exp_()


def _in_one_pass(
    problem: Problem, wanted: Wanted, with_weights: bool
) -> tuple[Result, Statistics, Tensor | None] | None:
    """Return the forward pass, its statistics and, if wanted, the weights; None if no kernel can compute them."""
    if with_weights:
        return run_with_weights(problem, wanted)
    return (*run_with(problem, wanted), None) if second_pass.refuses(problem, wanted) is None else None


def is_short(length: int) -> bool:
    """Whether all weights are stored for texts of so many tokens."""
    return length <= DENSE_UP_TO


def _gathered(table: Tensor, text: Tensor, place: Tensor) -> Tensor:
    """Return (N, H, n, W): rows of (B, H, L, W) at n positions of a text, for N texts."""
    _, heads, length, width = table.shape
    first = (text[:, None] * heads + torch.arange(heads)) * length  # (N, H): the first row of each text's head
    flat = first[:, :, None] + place[:, None]
    return table.reshape(-1, width).index_select(0, flat.view(-1)).view(*flat.shape, width)


def _near_products(logits: Logits, distance: int) -> Tensor:
    """Return (B·H·L, 2·distance + 1): q·k of each query and the keys around it; undefined where there is no such key.

    The queries of all texts and heads are cut into strips, and each strip is multiplied by the keys around it. Only the
    products on the diagonals are kept, 9 of every 24. This takes a tenth of the time of one diagonal at a time.
    """
    query, key = logits.query, repeat_heads(logits.key, logits.shape[1])
    width = query.shape[3]
    query, key = query.reshape(-1, width), key.reshape(-1, width)
    count = len(query)
    spare = -count % STRIP
    query = F.pad(query, (0, 0, 0, spare)) if spare else query
    key = F.pad(key, (0, 0, distance, distance + spare))
    span = STRIP + 2 * distance
    strips = (count + spare) // STRIP
    around = key.as_strided((strips, span, width), (STRIP * width, width, 1))
    dots = torch.bmm(query.view(strips, STRIP, width), around.transpose(1, 2))
    diagonals = dots.as_strided((strips, STRIP, 2 * distance + 1), (STRIP * span, span + 1, 1))
    return diagonals.reshape(-1, 2 * distance + 1)[:count]
