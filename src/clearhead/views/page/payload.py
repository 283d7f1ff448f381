"""The payload: the JSON data that every web picture draws from, with notes about what it leaves out.

Its size does not grow with L²: maps are dense if they fit, else pooled to tiles; links are kept for every token if they
fit, else for every n-th. Numbers are base64 of little-endian unsigned integers with a scale (packing.py). For a very
long text, a live page first gets an outline: long_texts.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import ceil, isqrt, prod
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from clearhead.matrix import AttentionMatrix
from clearhead.views.checks import check_same_tokens
from clearhead.views.comparison import divergences
from clearhead.views.links import LINKS, StrongestLinks, first_link, strongest_links
from clearhead.views.maps import THUMB, Array, hidden, tiles
from clearhead.views.media.looks import largest
from clearhead.views.page import long_texts
from clearhead.views.page.media import pictures, sound
from clearhead.views.page.packing import masked, pack, pack_indices
from clearhead.views.score_tables import tables
from clearhead.views.token_axes import TokenAxis, token_axes

if TYPE_CHECKING:
    from clearhead.capture import Reading

FORMAT = "clearhead.attention/1"
MAP_NUMBERS = 900_000  # cells of all maps together: 2 bytes each, 2.4 MB as base64
SCORED = 50_000_000  # up to this many weights in all, every score of every head is computed at once
LINK_NUMBERS = 300_000  # numbers of all links together: 4 bytes each, 1.6 MB as base64


Progress = Callable[[int, int], None]  # called with (layers described, layers in all); may raise, to stop


def payload(
    reading: "Reading",
    *,
    text: str | None = None,
    model: str | None = None,
    target: str | None = None,
    file: str | None = None,
    second: "Reading | None" = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
    live: bool = False,
) -> dict[str, Any]:
    """Describe one reading for the ES module `attention.js`.

    Args:
        reading: one text or picture through one model; the first entry of its batch is described.
        text: the text as typed.
        model: the argument with which the model was loaded, None for the demo model. With `text`, a picture can say how
            to repeat it.
        target: the decoder's input, as typed.
        file: the name of the picture or the sound.
        second: a reading of another model with the same number of tokens, to show differences.
        notes: sentences about what else was left out.
        progress: called after each layer.
        live: whether the page can ask `questions.answer`. Then, past about 10⁹ weights, this is an outline, in seconds.
    Returns:
        A dict that `json.dumps` takes: `format`, `model`, `text`, `target`, `loaded_by`, `versions`, `tokens`, `axes`
        (the tokens along rows and columns: `sequence`, `tokens` (None for those above), and `start` or `positions`),
        `note`, `units` ("tokens", "words" or "lines"), `first` (the link to open first), `layers` (each with `name`,
        `heads`, `queries` and `keys` (which of the axes), `thumb`, `map`, `links`, `masked`, `few` (how many queries
        of each cell an outline used, 0 for all) and `looks` (the most that a word gives to a patch or moment, for each
        head; None in an outline)), `scores` (name -> its meaning, and a value per head), `top` (the largest weight
        kept), `pictures` and `sound` (see media.py), `file`, `missed`, `left_out`.
    Raises:
        OptionError: the second reading has another number of tokens.
    Memory: one layer's weights at a time while they are few, else O(tiles); at most about 5 MB as JSON.
    """
    matrices = list(reading.record.values())
    every = [*matrices, *(second.record.values() if second else ())]
    if outlined := live and long_texts.is_long(every):
        side = min(long_texts.sides(every), isqrt(MAP_NUMBERS // sum(matrix.shape[1] for matrix in every)))
        budget = _Budget(side, whole=0, stride=0)
    else:
        budget = _budget(every)
    layers: list[dict[str, Any]] = []
    kept, breadths = [], []
    axes = Axes(reading)
    has_media = bool(reading.pictures) or reading.sound is not None
    for name, matrix in reading.record.items():
        drawn = _drawn(matrix, budget, share=outlined / len(every))
        looks = None if drawn.few or not has_media else largest(reading, len(layers)).tolist()
        layers.append(_layer(name, matrix, drawn) | axes.of(name) | {"looks": looks})
        kept.append(drawn.kept)
        breadths.append(drawn.breadth)
        if progress is not None:
            progress(len(layers), len(matrices))
    first = first_link(reading, kept)
    return {
        "format": FORMAT,
        "model": reading.model_name,
        "text": text,
        "target": target,
        "loaded_by": model,
        "versions": {name: version(name) for name in ("clearhead", "torch")},
        "tokens": list(reading.tokens),
        "axes": axes.plain,
        "note": reading.note,
        "units": getattr(reading.record, "units", "tokens"),
        "first": {"layer": first.layer, "head": first.head, "token": first.query},
        "layers": layers,
        "scores": {
            table.name: {"about": table.about, "values": table.values}
            for table in tables(reading, most=0 if outlined else SCORED, breadths=breadths if outlined else None)
        },
        "top": max((layer["top"] for layer in layers), default=0.0),
        "pictures": pictures(reading),
        "sound": sound(reading),
        "file": file,
        "other": None if second is None else beside(reading, second, budget, share=outlined / len(every)),
        "missed": [{"name": missed.name, "reason": missed.reason} for missed in reading.record.missed],
        "left_out": "; ".join([*_left_out(matrices, budget), *notes]) or None,
    }


class Axes:
    """The axes of a reading's matrices, each described once however many layers share it."""

    def __init__(self, reading: "Reading") -> None:
        self._reading = reading
        self._known: dict[Any, int] = {}
        self.plain: list[dict[str, Any]] = []

    def of(self, name: str) -> dict[str, int]:
        """Return the indices of the axes that a layer's queries and keys run along."""
        queries, keys = token_axes(self._reading, name)
        return {"queries": self._place(queries), "keys": self._place(keys)}

    def _place(self, line: TokenAxis) -> int:
        identity = (line.sequence, line.positions)
        if identity not in self._known:
            self._known[identity] = len(self.plain)
            same = line.sequence == "input" and line.whole and len(line.tokens) == len(self._reading.tokens)
            is_range = isinstance(line.positions, range)
            self.plain.append(
                {
                    "sequence": line.sequence,
                    "tokens": None if same else line.tokens,  # None: the reading's own
                    "start": line.positions[0] if is_range and len(line.positions) else 0,
                    "positions": None if is_range else list(line.positions),
                }
            )
        return self._known[identity]


def beside(reading: "Reading", second: "Reading", budget: "_Budget", share: float = 0.0) -> dict[str, Any]:
    """Describe the second model: `model`, `layers` like the first's, and `kl[layer][head]`, nats per query.

    This is the KL divergence of the first model's head from the one in the same place, None if infinite. Undefined
    values are left out.
    """
    check_same_tokens(reading, second)
    return {
        "model": second.model_name,
        "layers": [_layer(name, matrix, _drawn(matrix, budget, share=share)) for name, matrix in second.record.items()],
        "kl": divergences(reading, second, few=8 if share else None),
    }


@dataclass(frozen=True, slots=True)
class _Budget:
    """How much of each layer is kept: layers of at most `whole` weights entirely, the others as maps of side `side`.

    Links are kept for every `stride`-th query.
    """

    side: int
    whole: int
    stride: int


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The data of a drawn layer: its map (H, r, c), its strongest links, and the numbers of an outline."""

    map: Array
    kept: StrongestLinks
    breadth: Array | None = None
    few: int = 0


def _drawn(matrix: AttentionMatrix, budget: _Budget, *, share: float) -> _Drawn:
    """Return the data of a layer, as an outline if it has a share of the outline's work."""
    if not share:
        rows, cols = matrix.shape[2:] if _weights(matrix) <= budget.whole else (budget.side, budget.side)
        return _Drawn(tiles(matrix, rows, cols), strongest_links(matrix, budget.stride))
    outline = long_texts.outline(matrix, budget.side, share)
    return _Drawn(outline.map, outline.kept, outline.breadth, outline.few)


def _layer(name: str, matrix: AttentionMatrix, drawn: _Drawn) -> dict[str, Any]:
    _, heads, length, keys = matrix.shape
    map_, kept = drawn.map, drawn.kept
    top = float(kept.weights.max(initial=0.0))
    small = F.adaptive_avg_pool2d(
        torch.from_numpy(map_), (min(THUMB, map_.shape[1]), min(THUMB, map_.shape[2]))
    ).numpy()
    return {
        "name": name,
        "heads": heads,
        "shape": [length, keys],
        "few": drawn.few,
        "top": top,
        "thumb": pack(small, "u8", float(small.max(initial=0.0))),
        "map": pack(map_, "u16", float(map_.max(initial=0.0))),
        "links": {
            "stride": kept.stride,
            "weights": pack(kept.weights, "u16", top),
            "keys": pack_indices(kept.keys, keys),
        },
        "masked": masked(hidden(matrix, map_)),
        "thumb_masked": masked(hidden(matrix, small)),
    }


def _budget(matrices: Sequence[AttentionMatrix]) -> _Budget:
    """Return what is kept of each layer: small ones entirely, and the others share what is left."""
    room, whole = MAP_NUMBERS, 0
    heads = sum(matrix.shape[1] for matrix in matrices)
    by_size = sorted(matrices, key=_weights)
    for number, matrix in enumerate(by_size):
        if _weights(matrix) > room // (len(matrices) - number):
            break
        room, whole, heads = room - _weights(matrix), _weights(matrix), heads - matrix.shape[1]
    # A multiple of the small map's cells, so that the means of the small map are those of the weights.
    side = THUMB * max(1, isqrt(room // max(heads, 1)) // THUMB)
    links = sum(LINKS * matrix.shape[1] * matrix.shape[2] for matrix in matrices)
    return _Budget(side, whole, max(1, ceil(links / LINK_NUMBERS)))


def _weights(matrix: AttentionMatrix) -> int:
    """Return the number of weights of all heads."""
    return matrix.shape[1] * matrix.shape[2] * matrix.shape[3]


def _left_out(matrices: Sequence[AttentionMatrix], budget: _Budget) -> list[str]:
    """Return notes about what the data leaves out, except for an outline, which each layer marks itself."""
    notes = []
    side, stride = budget.side, budget.stride
    most = max((max(matrix.shape[-2:]) for matrix in matrices if _weights(matrix) > budget.whole), default=0)
    if stride and most > side:
        which = "each map shows" if budget.whole == 0 else "large maps show"
        notes.append(f"{which} means over tiles, {side} × {side} for up to {most} × {most} weights")
    if stride > 1:
        notes.append(f"links are kept for every {stride}th token" if stride > 3 else f"links: one token in {stride}")
    if sum(prod(matrix.shape) for matrix in matrices) > SCORED:
        notes.append("of the scores only breadth is worked out")
    return notes
