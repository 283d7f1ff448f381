"""Find the strongest links: of a token, of a head, between words; and the link to open first."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clearhead.views.maps import numbers
from clearhead.views.token_axes import TokenAxis, token_axes

if TYPE_CHECKING:
    from torch import Tensor

    from clearhead.capture import Reading
    from clearhead.matrix import AttentionMatrix

LINKS = 8  # strongest links kept for a token
BLOCK = 1_000_000  # weights in memory at a time


@dataclass(frozen=True, slots=True)
class StrongestLinks:
    """The strongest links of every `stride`-th query, largest first: weights and keys, both (H, rows, 8)."""

    weights: NDArray[np.float64]
    keys: NDArray[np.int64]
    stride: int = 1


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
    """Return the `count` largest weights of one head, or of one query's row, largest first."""
    values, keys = matrix.topk(min(count, matrix.shape[-1]))
    weights, places = numbers(values)[0, head], keys[0, head].cpu().numpy()
    rows = range(len(weights)) if query is None else [query]
    links = [
        Link(layer, head, row, int(places[row, i]), float(weights[row, i]))
        for row in rows
        for i in range(weights.shape[1])
        if weights[row, i] > 0
    ]
    return sorted(links, key=lambda link: -link.weight)[:count]


def between_words(reading: "Reading", count: int) -> list[Link]:
    """Return the largest weights between two different words, over all heads; special tokens do not count.

    With a picture or a sound, they are those from a word to a patch or a moment.

    There is one link per head, so that a single sharp head does not fill the list.
    """
    kept = [strongest_links(matrix) for matrix in reading.record.values()]
    links = [link for link in _between_words(kept, _axes(reading), least=1) if link.weight > 0]
    return sorted(links, key=lambda link: -link.weight)[:count]


def strongest_links(matrix: "AttentionMatrix", stride: int = 1) -> StrongestLinks:
    """The strongest links of every `stride`-th query; fewer than 8 where there are fewer keys.

    Memory: with a stride, 4 MB of weights at a time. Cost: that of the queries used.
    """
    count = min(LINKS, matrix.shape[-1])
    if stride == 1:
        values, indices = matrix.topk(count)
        return StrongestLinks(numbers(values)[0], indices[0].cpu().numpy())
    step = stride * max(1, BLOCK // matrix.shape[-1])
    rows = [slice(start, start + step, stride) for start in range(0, matrix.shape[2], step)]
    heads = [[_topk(matrix[0, head, part], count) for part in rows] for head in range(matrix.shape[1])]
    weights, keys = (np.stack([np.concatenate([part[which] for part in parts]) for parts in heads]) for which in (0, 1))
    return StrongestLinks(weights, keys, stride)


def _topk(weights: "Tensor", count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the largest weights of each row and their places, (rows, count), as copies."""
    values, places = weights.topk(count)
    return numbers(values), places.cpu().numpy().copy()


def first_link(reading: "Reading", links: list[StrongestLinks] | None = None) -> Link:
    """Return the link to open first: the strongest between two words that are not neighbours, or to a patch or moment.

    The words are at least four tokens apart if the text has such a pair, else as near to that as possible. `links`: the
    strongest links of every layer, if they are already known.
    """
    links = links or [strongest_links(matrix) for matrix in reading.record.values()]
    axes = _axes(reading)
    for least in (4, 2, 1, 0):
        candidates = [link for link in _between_words(links, axes, least=least) if link.weight > 0]
        if candidates:
            return max(candidates, key=lambda link: link.weight)
    return Link(0, 0, 0, 0, 0.0)


def _axes(reading: "Reading") -> list[tuple[TokenAxis, TokenAxis]]:
    """Return the axes of each layer, with all tokens marked special that a telling link does not begin or end at."""
    axes = [token_axes(reading, name) for name in reading.record]
    if not reading.pictures and reading.sound is None:
        return axes
    patches = {place for picture in reading.pictures for place in picture.places()}
    return [
        (
            replace(queries, special=[True] * len(queries.tokens)) if _is_heard(reading, queries) else queries,
            replace(keys, special=[not _is_heard(reading, keys) and place not in patches for place in keys.positions]),
        )
        for queries, keys in axes
    ]


def _is_heard(reading: "Reading", axis: TokenAxis) -> bool:
    """Return whether an axis runs along the frames of a sound."""
    return reading.sound is not None and axis.sequence == "input"


def _between_words(kept: list[StrongestLinks], axes: list[tuple[TokenAxis, TokenAxis]], *, least: int) -> list[Link]:
    """Return each head's strongest link between two words, at least `least` tokens apart if they are in one text."""
    links = []
    for layer, (layer_links, (queried, keyed)) in enumerate(zip(kept, axes, strict=True)):
        weights, keys = layer_links.weights, layer_links.keys
        queries = np.arange(weights.shape[1])[None, :, None] * layer_links.stride
        wanted = keyed.words()[keys] & queried.words()[queries]
        if queried.sequence == keyed.sequence:
            wanted &= np.abs(keyed.places()[keys] - queried.places()[queries]) >= least
        held = np.where(wanted, weights, 0.0)
        for head, rows in enumerate(held):
            query, place = np.unravel_index(int(rows.argmax()), rows.shape)
            key, weight = int(keys[head, query, place]), float(rows[query, place])
            links.append(Link(layer, head, int(query) * layer_links.stride, key, weight))
    return links
