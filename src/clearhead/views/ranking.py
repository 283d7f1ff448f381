"""Which links and which heads to show first: the strongest between ordinary words."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clearhead.views.numbers import numbers

if TYPE_CHECKING:
    from clearhead.capture import Reading
    from clearhead.matrix import AttentionMatrix

LINKS = 8  # strongest links kept for a token
Kept = tuple[NDArray[np.float64], NDArray[np.int64]]  # weights and keys, (H, L, 8)
Words = NDArray[np.bool_]  # (L,): whether a token is one of the text's own


@dataclass(frozen=True, slots=True)
class Link:
    """One weight: head `head` of layer `layer`, from query `query` to key `key` (positions, from 0)."""

    layer: int
    head: int
    query: int
    key: int
    weight: float


def strongest(
    matrix: "AttentionMatrix", head: int, count: int, *, layer: int = 0, query: int | None = None
) -> list[Link]:
    """The `count` largest weights of one head (of one query's row, where given), largest first."""
    values, keys = matrix.topk(min(count, matrix.shape[-1]))
    weights, places = numbers(values)[0, head], keys[0, head].cpu().numpy()
    rows = range(len(weights)) if query is None else [query]
    found = [
        Link(layer, head, row, int(places[row, i]), float(weights[row, i]))
        for row in rows
        for i in range(weights.shape[1])
        if weights[row, i] > 0
    ]
    return sorted(found, key=lambda link: -link.weight)[:count]


def between_words(reading: "Reading", count: int) -> list[Link]:
    """The largest weights of all heads between two different words: special tokens and a token itself left out.

    One link a head, so that a single sharp head does not fill the list.
    """
    words = ~np.asarray(reading.special, dtype=bool)
    links = [kept_links(matrix) for matrix in reading.record.values()]
    found = [link for link in _bests(links, words, least=1) if link.weight > 0]
    return sorted(found, key=lambda link: -link.weight)[:count]


def kept_links(matrix: "AttentionMatrix") -> Kept:
    """The strongest links of every query: weights and their keys, both (H, L, 8), fewer where there are fewer keys."""
    values, indices = matrix.topk(min(LINKS, matrix.shape[-1]))
    return numbers(values)[0], indices[0].cpu().numpy()


def telling(reading: "Reading", links: list[Kept] | None = None) -> Link:
    """A link worth opening first: the strongest between two words that are not neighbours.

    At least four tokens apart, where the text has such a pair, else the nearest to that. `links` are those of every
    layer, where they are known already.
    """
    links = links or [kept_links(matrix) for matrix in reading.record.values()]
    words = ~np.asarray(reading.special, dtype=bool)
    for least in (4, 2, 1, 0):
        found = [link for link in _bests(links, words, least=least) if link.weight > 0]
        if found:
            return max(found, key=lambda link: link.weight)
    return Link(0, 0, 0, 0, 0.0)


def _bests(links: list[Kept], words: Words, *, least: int) -> list[Link]:
    """Each head's strongest link between two words at least `least` tokens apart."""
    found = []
    for layer, (weights, keys) in enumerate(links):
        queries = np.arange(weights.shape[1])[None, :, None]
        kept = words[keys] & words[queries] & (np.abs(keys - queries) >= least)
        held = np.where(kept, weights, 0.0)
        for head, rows in enumerate(held):
            query, place = np.unravel_index(int(rows.argmax()), rows.shape)
            found.append(Link(layer, head, int(query), int(keys[head, query, place]), float(rows[query, place])))
    return found
