"""Find where the tokens of a text occur again, as tensors that group tokens by their number of occurrences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clearhead.survey.measuring.batches import Batch

PAIRS = 2**18  # pairs of queries and keys in a block, over all heads: 1 MiB of float32


@dataclass(frozen=True, slots=True)
class Repeats:
    """Tokens that occur more than once in their texts, N of them.

    Attributes:
        text: (N,), the text of the token.
        places: (N, M), its positions, increasing; padded with the last one if it occurs fewer than M times.
        count: (N,), the number of occurrences.
    """

    text: Tensor
    places: Tensor
    count: Tensor

    def blocks(self, heads: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Iterate over the pairs of occurrences in blocks of PAIRS.

        Yields:
            text (n,); positions of queries (n, R) and of keys (n, M); and (n, R, M), float32, 1 where the key is an
            earlier occurrence.
        """
        most = self.places.shape[1]
        tokens = max(PAIRS // (heads * most * most), 1)
        height = max(PAIRS // (heads * most), 1)
        number = torch.arange(most)
        for first in range(0, len(self.text), tokens):
            chosen = slice(first, first + tokens)
            text, places = self.text[chosen], self.places[chosen]
            there = number < self.count[chosen, None]
            for start in range(0, most, height):
                rows = slice(start, start + height)
                earlier = (number < number[rows, None]) & there[:, rows, None]
                yield text, places[:, rows], places, earlier.float()


def repeated(batch: Batch) -> list[Repeats]:
    """Return the repeated tokens, grouped by occurrences: 2 to 4, 5 to 8, 9 to 16, and so on."""
    length = batch.ids.shape[1]
    text, place = batch.mask.nonzero().unbind(1)
    token = batch.ids[text, place]
    order = (text * (int(batch.ids.max()) + 1) + token).sort(stable=True)
    _, count = order.values.unique_consecutive(return_counts=True)
    first = count.cumsum(0) - count
    text, place = text[order.indices], place[order.indices]
    made, fewest, most = [], 2, 4
    while fewest <= length:
        chosen = ((count >= fewest) & (count <= most)).nonzero()[:, 0]
        if len(chosen):
            own = count[chosen]
            members = first[chosen, None] + torch.minimum(torch.arange(most), own[:, None] - 1)
            made.append(Repeats(text[first[chosen]], place[members], own))
        fewest, most = most + 1, 2 * most
    return made


def pairs(repeats: list[Repeats]) -> tuple[Tensor, Tensor, Tensor]:
    """Return text, query and key, each (N,), of every token's occurrences and its earlier ones."""
    made: list[Tensor] = [torch.empty(3, 0, dtype=torch.int64)]
    for group in repeats:
        for text, query, key, earlier in group.blocks(1):
            token, later, before = earlier.nonzero().unbind(1)
            made.append(torch.stack([text[token], query[token, later], key[token, before]]))
    text, query, key = torch.cat(made, 1).unbind(0)
    return text, query, key
