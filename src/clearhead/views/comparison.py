"""Two models over one text: which heads attend alike, which differ, and where."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clearhead.errors import OptionError, TooLargeError
from clearhead.extras import needs
from clearhead.views import terminal
from clearhead.views.arrays import Array, numbers
from clearhead.views.checks import check_head, refuse_unlike
from clearhead.views.page.payload import tiles
from clearhead.views.token_axes import layer_lines, lines

with needs("cli", "comparing models in a terminal"):
    from rich.console import Group, RenderableType
    from rich.text import Text

if TYPE_CHECKING:
    from clearhead.capture import Reading

FORMAT = "clearhead.comparison/1"
MOST_NUMBERS = 50_000_000  # weights of one model held at a time: 400 MB
MORE, LESS = " ░▒▓█", " .:*#"  # the first model's weight is larger, or the second's


@dataclass(frozen=True, slots=True)
class Comparison:
    """How alike each head of one reading is to each of another.

    Attributes:
        first, second: one text through two models, tokenised alike.
        heads: (layer, head) of the first model, row by row of `alike`; `others`: of the second, column by column.
        alike: (heads, others), 0 to 1: the cosine of two heads' rows of weights, mean over queries; NaN for heads that
            attend between other tokens, as an encoder's and a decoder's do.
        nats: (heads, others), the Kullback-Leibler divergence Σⱼ aⱼ·log(aⱼ / bⱼ) of a head from another, mean over
            queries; infinite where the second gives nothing to a key that the first looks at, NaN where `alike` is.
    """

    first: "Reading"
    second: "Reading"
    heads: list[tuple[int, int]]
    others: list[tuple[int, int]]
    alike: Array
    nats: Array

    def same_place(self) -> list[tuple[float, float, int, int]]:
        """(likeness, divergence, layer, head) of the heads that both models have, least alike first."""
        place = {name: column for column, name in enumerate(self.others)}
        cells = [
            (row, place[name], name)
            for row, name in enumerate(self.heads)
            if name in place and np.isfinite(self.alike[row, place[name]])
        ]
        return sorted((float(self.alike[row, col]), float(self.nats[row, col]), *name) for row, col, name in cells)

    def best(self) -> list[tuple[float, tuple[int, int], tuple[int, int]]]:
        """For each head of the first its likest of the second: (likeness, head, other), likest first."""
        columns = np.where(np.isnan(self.alike), -1.0, self.alike).argmax(1)
        found = [
            (float(self.alike[row, column]), self.heads[row], self.others[column])
            for row, column in enumerate(columns)
            if np.isfinite(self.alike[row, column])
        ]
        return sorted(found, key=lambda entry: -entry[0])


def compare(first: "Reading", second: "Reading") -> Comparison:
    """Compare every head of one reading with every head of another.

    Args:
        first, second: one text through two models (or two texts of as many tokens).
    Raises:
        OptionError: the two have not as many tokens, so that their maps do not lie on each other.
        TooLargeError: the text is too long for all pairs of heads at once.
    Memory: the weights of both, at most 400 MB each.
    """
    refuse_unlike(first, second)
    ours, theirs = _rows(first), _rows(second)
    heads, others = ([place for group in groups.values() for place in group.places] for groups in (ours, theirs))
    alike, nats = (np.full((len(heads), len(others)), np.nan) for _ in range(2))
    for kind in ours.keys() & theirs.keys():
        one, other = ours[kind], theirs[kind]
        block = np.ix_([heads.index(place) for place in one.places], [others.index(place) for place in other.places])
        size = one.weights.shape[1]
        cosines = np.einsum("hls,gls->hg", _unit(one.weights), _unit(other.weights), optimize=True) / size
        alike[block] = np.clip(cosines, 0.0, 1.0)
        nats[block] = _divergence(one.weights, other.weights) / size
    heads, others = sorted(heads), sorted(others)
    return Comparison(first, second, heads, others, *_sorted(ours, theirs, alike, nats))


def overview(found: Comparison, count: int = 8) -> RenderableType:
    """The heads that differ most where both models have one, and the likest pairs wherever they are."""
    first, second = found.first.model_name, found.second.model_name
    parts: list[RenderableType] = [
        Text.assemble((first, "bold"), " and ", (second, "bold"), f"   {len(found.first.tokens)} tokens"),
        Text("likeness: cosine of two heads' weights, mean over queries; 1 is the same", style=terminal.QUIET),
        Text("KL: how far the second's weights are from the first's, nats a query; 0: same", style=terminal.QUIET),
    ]
    same = found.same_place()
    if same:
        parts += [Text(), Text("KL of heads in the same place", style="bold"), *_places(found)]
        parts += [Text(), Text("Least alike in the same place", style="bold")]
        parts += [
            _line(likeness, f"layer {layer}, head {head}   KL {nats:.3f}")
            for likeness, nats, layer, head in same[:count]
        ]
    parts += [Text(), Text("Likest pairs", style="bold")]
    for likeness, (layer, head), (other_layer, other_head) in found.best()[:count]:
        parts.append(_line(likeness, f"layer {layer}, head {head}  and  layer {other_layer}, head {other_head}"))
    parts += [Text(f"{one.model_name}: {one.note}") for one in (found.first, found.second) if one.note]
    return Group(*parts)


def _places(found: Comparison) -> list[Text]:
    """The divergence of each head from the one in the same place, layers down, heads across, in shades."""
    nats = {(layer, head): value for _, value, layer, head in found.same_place()}
    top = max((value for value in nats.values() if np.isfinite(value)), default=0.0)
    across = max(head for _, head in nats) + 1
    lines = [Text("    " + "".join(f"{head:<3}" for head in range(across)).rstrip(), style=terminal.QUIET)]
    for layer in sorted({layer for layer, _ in nats}):
        line = Text(f"{layer:>3} ", style=terminal.QUIET)
        for head in range(across):
            value = nats.get((layer, head))
            shade = " " if value is None else MORE[terminal.level(min(value, top), top)]
            line.append("∞∞ " if value == np.inf else shade * 2 + " ", style=terminal.WEIGHT)
        line.rstrip()
        lines.append(line)
    scale = "  ".join(f"{(step / 4) ** 2 * top:.3g} [{MORE[step] * 2}]" for step in range(5))
    return [*lines, Text(f"nats  {scale}", style=terminal.QUIET)]


def one_head(found: Comparison, layer: int, head: int, width: int = 80) -> RenderableType:
    """Where a head of the first model and the one in the same place of the second differ: first less second."""
    check_head(found.first, layer, head)
    queries, _ = layer_lines(found.first, layer)
    names = 4 + max(len(token[:14]) for token in queries.tokens)
    difference = between(found, layer, head, max(8, (width - names - 2) // 2))
    top = float(np.abs(difference).max(initial=0.0))
    lines: list[RenderableType] = [
        Text(f"Layer {layer}, head {head}: {found.first.model_name} less {found.second.model_name}", style="bold"),
        Text(f"rows: queries  columns: keys   KL {_nats(found, layer, head):.3f} nats a query", style=terminal.QUIET),
        Text(),
    ]
    size = len(queries.positions)
    dense = len(difference) == size
    for row, values in enumerate(difference):
        start = row * size // len(difference)
        name = queries.tokens[start][:14].replace(" ", "␣") if dense else ""
        line = Text(f"{name} {queries.positions[start]:>3}".rjust(names) + " ", style=terminal.QUERY)
        for value in values:
            shade = terminal.level(abs(float(value)), top)
            line.append(
                (MORE if value > 0 else LESS)[shade] * 2, style=terminal.WEIGHT if value > 0 else terminal.QUERY
            )
        lines.append(line)
    scale = "  ".join(f"{(step / 4) ** 2 * top:.3g} {MORE[step] * 2} {LESS[step] * 2}" for step in range(1, 5))
    return Group(*lines, Text(), Text(f"first more, second more:  {scale}", style=terminal.QUIET))


def between(found: Comparison, layer: int, head: int, cells: int) -> Array:
    """(r, c): the first model's map less the second's, at most `cells` a side.

    Raises:
        OptionError: one of the models has no such head.
    """
    maps = []
    for reading in (found.first, found.second):
        check_head(reading, layer, head)
        maps.append(tiles(list(reading.record.values())[layer], cells, cells)[head])
    if maps[0].shape != maps[1].shape:
        raise OptionError(
            f"layer {layer} of {found.first.model_name} and of {found.second.model_name} attend between other tokens, "
            "so their maps do not lie on each other. Name a layer that both have in one place."
        )
    return maps[0] - maps[1]


def listing(found: Comparison) -> dict[str, Any]:
    """The same numbers for programs."""
    return {
        "format": FORMAT,
        "models": [found.first.model_name, found.second.model_name],
        "tokens": [list(found.first.tokens), list(found.second.tokens)],
        "decoder_tokens": [
            None if one.decoder is None else list(one.decoder.tokens) for one in (found.first, found.second)
        ],
        "notes": [found.first.note, found.second.note],
        "same_place": [
            {
                "layer": layer,
                "head": head,
                "likeness": round(likeness, 6),
                "kl": round(nats, 6) if nats < np.inf else None,
            }
            for likeness, nats, layer, head in found.same_place()
        ],
        "best": [
            {"head": list(head), "other": list(other), "likeness": round(likeness, 6)}
            for likeness, head, other in found.best()
        ],
    }


def _nats(found: Comparison, layer: int, head: int) -> float:
    if (layer, head) not in found.others:
        return float("nan")
    return float(found.nats[found.heads.index((layer, head)), found.others.index((layer, head))])


@dataclass(frozen=True, slots=True)
class _Heads:
    """Heads that attend between the same tokens: their places, and their weights (heads, L, S)."""

    places: list[tuple[int, int]]
    weights: Array


Kind = tuple[Any, ...]  # the sequences and positions of queries and keys


def _rows(reading: "Reading") -> dict[Kind, _Heads]:
    """All heads' weights, by what they attend between."""
    matrices = list(reading.record.values())
    size = sum(int(np.prod(matrix.shape[1:])) for matrix in matrices)
    if size > MOST_NUMBERS:
        raise TooLargeError(
            f"comparing all heads takes {size:,} weights at once, more than {MOST_NUMBERS:,}. Use a shorter text."
        )
    if not matrices:
        raise OptionError(f"no attention of {reading.model_name} was captured, so there is nothing to compare.")
    found: dict[Kind, tuple[list[tuple[int, int]], list[Array]]] = {}
    for layer, (name, matrix) in enumerate(reading.record.items()):
        kind = tuple((line.sequence, tuple(line.positions)) for line in lines(reading, name))
        places, weights = found.setdefault(kind, ([], []))
        places += [(layer, head) for head in range(matrix.shape[1])]
        weights.append(numbers(matrix.to_dense())[0])
    return {kind: _Heads(places, np.concatenate(weights)) for kind, (places, weights) in found.items()}


def _sorted(ours: dict[Kind, _Heads], theirs: dict[Kind, _Heads], *tables: Array) -> list[Array]:
    """The tables with rows and columns in the order of layers and heads, not of groups."""
    orders = [
        sorted(range(len(places)), key=places.__getitem__)
        for places in ([place for group in groups.values() for place in group.places] for groups in (ours, theirs))
    ]
    return [table[np.ix_(*orders)] for table in tables]


def _unit(weights: Array) -> Array:
    """The same with rows of length 1; an empty row stays empty."""
    lengths = np.sqrt((weights**2).sum(-1, keepdims=True))
    return weights / np.where(lengths > 0, lengths, 1.0)


def _divergence(ours: Array, theirs: Array) -> Array:
    """(heads, others): Σ a·log a - Σ a·log b, both sums as products of matrices; infinite where b is 0 and a is not."""
    a, b = (weights.reshape(len(weights), -1) for weights in (ours, theirs))
    own = (a * np.log(np.where(a > 0, a, 1.0))).sum(-1)
    cross = a @ np.log(np.where(b > 0, b, 1.0)).T
    outside = (a > 0).astype(np.float32) @ (b == 0).astype(np.float32).T > 0.5
    return np.where(outside, np.inf, np.maximum(own[:, None] - cross, 0.0))


def _line(likeness: float, what: str) -> Text:
    return (
        Text(f"  {likeness:.3f}  ")
        .append(f"{'█' * round(12 * likeness):<12}", style=terminal.WEIGHT)
        .append(f"  {what}")
    )
