"""Compare two models over one text: which heads attend alike, which differ, and where."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clearhead.errors import OptionError, TooLargeError
from clearhead.printing import count
from clearhead.views.checks import check_head, check_same_tokens
from clearhead.views.maps import Array, numbers, tiles
from clearhead.views.token_axes import token_axes

if TYPE_CHECKING:
    from clearhead.capture import Reading

FORMAT = "clearhead.comparison/1"
RESOLUTION = 1e-6  # nats per query; less is rounding: a row of float32 weights sums to 1 only to about 1e-7
MOST_NUMBERS = 50_000_000  # weights of one model held at a time: 400 MB


@dataclass(frozen=True, slots=True)
class Comparison:
    """The similarity of each head of one reading to each head of another.

    Attributes:
        first, second: one text through two models, tokenised alike.
        heads: (layer, head) of the first model, row by row of `alike`; `others`: of the second, column by column.
        alike: (heads, others), 0 to 1: the cosine of two heads' rows of weights, mean over queries; NaN for heads over
            different tokens, such as an encoder's and a decoder's.
        nats: (heads, others), the Kullback-Leibler divergence Σⱼ aⱼ·log(aⱼ / bⱼ) of a head from another, mean over
            queries; 0 below `RESOLUTION`, infinite where the second gives no weight to a key that the first attends to,
            NaN where `alike` is.
    """

    first: "Reading"
    second: "Reading"
    heads: list[tuple[int, int]]
    others: list[tuple[int, int]]
    alike: Array
    nats: Array

    def __repr__(self) -> str:
        """The two models and how many heads were compared, on one line."""
        first, second = (reading.model_name for reading in (self.first, self.second))
        heads = f"{len(self.heads)} × {len(self.others)} heads"
        return f"Comparison({first!r} and {second!r}, {heads}, {count(len(self.first.tokens), 'token')})"

    def same_place(self) -> list[tuple[float, float, int, int]]:
        """Return (likeness, divergence, layer, head) of the heads that both models have, least alike first."""
        place = {name: column for column, name in enumerate(self.others)}
        cells = [
            (row, place[name], name)
            for row, name in enumerate(self.heads)
            if name in place and np.isfinite(self.alike[row, place[name]])
        ]
        return sorted((float(self.alike[row, col]), float(self.nats[row, col]), *name) for row, col, name in cells)

    def best(self) -> list[tuple[float, tuple[int, int], tuple[int, int]]]:
        """Return, for each head of the first, the most similar of the second: (likeness, head, other), best first."""
        columns = np.where(np.isnan(self.alike), -1.0, self.alike).argmax(1)
        pairs = [
            (float(self.alike[row, column]), self.heads[row], self.others[column])
            for row, column in enumerate(columns)
            if np.isfinite(self.alike[row, column])
        ]
        return sorted(pairs, key=lambda entry: -entry[0])


def compare(first: "Reading", second: "Reading") -> Comparison:
    """Compare every head of one reading with every head of another.

    Args:
        first, second: one text through two models (or two texts of as many tokens).
    Raises:
        OptionError: the two differ in their tokens, so their maps cannot be compared.
        TooLargeError: the text is too long for all pairs of heads at once.
    Memory: the weights of both, at most 400 MB each.
    """
    check_same_tokens(first, second)
    ours, theirs = _rows(first), _rows(second)
    heads, others = ([place for group in groups.values() for place in group.places] for groups in (ours, theirs))
    alike, nats = (np.full((len(heads), len(others)), np.nan) for _ in range(2))
    for kind in ours.keys() & theirs.keys():
        our_heads, their_heads = ours[kind], theirs[kind]
        block = np.ix_(
            [heads.index(place) for place in our_heads.places], [others.index(place) for place in their_heads.places]
        )
        size = our_heads.weights.shape[1]
        cosines = np.einsum("hls,gls->hg", _unit(our_heads.weights), _unit(their_heads.weights), optimize=True) / size
        alike[block] = np.clip(cosines, 0.0, 1.0)
        nats[block] = _resolved(_divergence(our_heads.weights, their_heads.weights) / size)
    heads, others = sorted(heads), sorted(others)
    return Comparison(first, second, heads, others, *_sorted(ours, theirs, alike, nats))


def between(comparison: Comparison, layer: int, head: int, cells: int) -> Array:
    """Return (r, c): the first model's map minus the second's, at most `cells` a side.

    Raises:
        OptionError: one of the models has no such head.
    """
    maps = []
    for reading in (comparison.first, comparison.second):
        check_head(reading, layer, head)
        maps.append(tiles(list(reading.record.values())[layer], cells, cells)[head])
    if maps[0].shape != maps[1].shape:
        raise OptionError(
            f"layer {layer} of {comparison.first.model_name} and of {comparison.second.model_name} attend between "
            "different tokens, so their maps cannot be compared. Name a layer that attends between the same tokens in "
            "both."
        )
    return maps[0] - maps[1]


def listing(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as JSON-ready data."""
    return {
        "format": FORMAT,
        "models": [comparison.first.model_name, comparison.second.model_name],
        "tokens": [list(comparison.first.tokens), list(comparison.second.tokens)],
        "decoder_tokens": [
            None if reading.decoder is None else list(reading.decoder.tokens)
            for reading in (comparison.first, comparison.second)
        ],
        "notes": [comparison.first.note, comparison.second.note],
        "same_place": [
            {
                "layer": layer,
                "head": head,
                "likeness": round(likeness, 6),
                "kl": round(nats, 6) if nats < np.inf else None,
            }
            for likeness, nats, layer, head in comparison.same_place()
        ],
        "best": [
            {"head": list(head), "other": list(other), "likeness": round(likeness, 6)}
            for likeness, head, other in comparison.best()
        ],
    }


@dataclass(frozen=True, slots=True)
class _Heads:
    """Heads that attend between the same tokens: their places, and their weights (heads, L, S)."""

    places: list[tuple[int, int]]
    weights: Array


Kind = tuple[Any, ...]  # the sequences and positions of queries and keys


def _rows(reading: "Reading") -> dict[Kind, _Heads]:
    """Return the weights of all heads, grouped by the tokens that they attend between."""
    matrices = list(reading.record.values())
    size = sum(int(np.prod(matrix.shape[1:])) for matrix in matrices)
    if size > MOST_NUMBERS:
        raise TooLargeError(
            f"comparing all heads takes {size:,} weights at once, more than {MOST_NUMBERS:,}. Use a shorter text."
        )
    if not matrices:
        raise OptionError(f"no attention of {reading.model_name} was captured, so there is nothing to compare.")
    groups: dict[Kind, tuple[list[tuple[int, int]], list[Array]]] = {}
    for layer, (name, matrix) in enumerate(reading.record.items()):
        kind = tuple((line.sequence, tuple(line.positions)) for line in token_axes(reading, name))
        places, weights = groups.setdefault(kind, ([], []))
        places += [(layer, head) for head in range(matrix.shape[1])]
        weights.append(numbers(matrix.to_dense())[0])
    return {kind: _Heads(places, np.concatenate(weights)) for kind, (places, weights) in groups.items()}


def _sorted(ours: dict[Kind, _Heads], theirs: dict[Kind, _Heads], *tables: Array) -> list[Array]:
    """Return the tables with rows and columns in the order of layers and heads, not of groups."""
    orders = [
        sorted(range(len(places)), key=places.__getitem__)
        for places in ([place for group in groups.values() for place in group.places] for groups in (ours, theirs))
    ]
    return [table[np.ix_(*orders)] for table in tables]


def _unit(weights: Array) -> Array:
    """Normalise rows to length 1; an empty row stays empty."""
    lengths = np.sqrt((weights**2).sum(-1, keepdims=True))
    return weights / np.where(lengths > 0, lengths, 1.0)


def _divergence(ours: Array, theirs: Array) -> Array:
    """Return (heads, others): Σ a·log a - Σ a·log b, as two matrix products; infinite where b is 0 and a is not."""
    a, b = (weights.reshape(len(weights), -1) for weights in (ours, theirs))
    own = (a * np.log(np.where(a > 0, a, 1.0))).sum(-1)
    cross = a @ np.log(np.where(b > 0, b, 1.0)).T
    outside = (a > 0).astype(np.float32) @ (b == 0).astype(np.float32).T > 0.5
    return np.where(outside, np.inf, np.maximum(own[:, None] - cross, 0.0))


def _resolved(nats: Array) -> Array:
    """Return 0 for what is rounding, so that two copies of a model do not seem to differ."""
    return np.where(nats < RESOLUTION, 0.0, nats)


def divergences(reading: "Reading", second: "Reading", *, few: int | None = None) -> list[list[float | None]]:
    """Return each head's divergence from the second model's at the same place: [layer][head], nats per query.

    Infinite values are None.

    Args:
        few: number of runs of queries to use, for an outline; None: all queries.
    """
    pairs = zip(reading.record.values(), second.record.values(), strict=False)
    return [_divergences_of_layer(ours, theirs, few) for ours, theirs in pairs if ours.shape[2:] == theirs.shape[2:]]


def _divergences_of_layer(ours: Any, theirs: Any, few: int | None) -> list[float | None]:
    heads = list(range(min(ours.shape[1], theirs.shape[1])))
    ours, theirs = ours.heads(heads), theirs.heads(heads)
    if few is None:
        nats = numbers(ours.kl(theirs))[0].mean(-1)
    else:
        runs = [(start, start + few) for start in range(0, ours.shape[2] - few, ours.shape[2] // few)]
        nats = np.mean([numbers(ours.rows(*run).kl(theirs.rows(*run)))[0].mean(-1) for run in runs], axis=0)
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in _resolved(nats)]
