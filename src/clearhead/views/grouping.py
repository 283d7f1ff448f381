"""Group tokens into words or lines: the same reading between larger units, which every view can draw."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from clearhead.capture.positions import Axis, Positions
from clearhead.capture.record_summary import MOST as MOST_SHOWN
from clearhead.capture.record_summary import axes_text
from clearhead.errors import OptionError
from clearhead.matrix import AttentionMatrix
from clearhead.messages import message
from clearhead.printing import count

if TYPE_CHECKING:
    from clearhead.capture import Grid, Reading

UNITS: Final = ("tokens", "words", "lines")
MOST: Final = 2**25  # weights between units, of all heads together: 134 MB
BLOCK: Final = 2**22  # weights in memory at a time while tokens are grouped

_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")  # Thai, kana, Chinese characters
_PARTS = re.compile(r"(.)\[1/(\d)\](?:\1\[\d/\2\])+", re.DOTALL)


class GroupedMatrix:
    """Attention between groups of tokens, (1, H, G, K), stored, with the methods of a matrix that the views use.

    From a group: the mean over its queries. To a group: the sum over its keys. A row still adds up to 1.

    Source: Clark et al. 2019, "What Does BERT Look At?", section 4.1.
    """

    dtype = torch.float32

    def __init__(self, weights: Tensor) -> None:
        self._weights = weights
        self.shape = tuple(weights.shape)

    def to_dense(self) -> Tensor:
        """(1, H, G, K)."""
        return self._weights

    def heads(self, heads: Any) -> "GroupedMatrix":
        """Return some heads."""
        return GroupedMatrix(self._weights[:, heads])

    def pooled(self, rows: int, cols: int, *, region: tuple[slice, slice] | None = None) -> Tensor:
        """Return (1, H, rows, cols): means over tiles of the whole matrix or of a region."""
        down, across = region or (slice(None), slice(None))
        return torch.nn.functional.adaptive_avg_pool2d(self._weights[:, :, down, across], (rows, cols))

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the k largest weights of each row and their places, both (1, H, G, k)."""
        values, places = self._weights.topk(k, dim=-1)
        return values, places

    def entropy(self) -> Tensor:
        """(1, H, G), nats."""
        return torch.special.entr(self._weights).sum(-1)

    def visible(self) -> Tensor:
        """Return (1, H, G): how many groups each row gives weight to."""
        return (self._weights > 0).sum(-1)

    def mean_distance(self, *, offset: int = 0) -> Tensor:
        """(1, H, G), groups."""
        rows, cols = (torch.arange(size, dtype=torch.float32) for size in self.shape[2:])
        return (self._weights * (rows[:, None] + offset - cols).abs()).sum(-1)

    def kl(self, other: "GroupedMatrix") -> Tensor:
        """Return (1, H, G), nats per row: Σⱼ aⱼ·log(aⱼ / bⱼ); infinite where b is 0 and a is not."""
        ours, theirs = self._weights, other._weights
        return (ours * (ours / theirs).log()).masked_fill(ours == 0, 0.0).sum(-1)

    def __getitem__(self, key: Any) -> Tensor:
        return self._weights[key]


class GroupedRecord(Mapping[str, GroupedMatrix]):
    """A record of matrices between groups of tokens, with the `missed` of the original record."""

    def __init__(self, units: str, missed: Any) -> None:
        self.units, self.missed = units, missed
        self._matrices: dict[str, GroupedMatrix] = {}
        self._positions: dict[str, Positions] = {}

    def add(self, name: str, matrix: GroupedMatrix, positions: Positions) -> None:
        """Add a layer."""
        self._matrices[name], self._positions[name] = matrix, positions

    def __repr__(self) -> str:
        lines = [f"\n  {name}: {axes_text(matrix.shape)}" for name, matrix in list(self._matrices.items())[:MOST_SHOWN]]
        return f"GroupedRecord({self.units}, {count(len(self), 'module')})" + "".join(lines)

    def positions(self, name: str) -> tuple[Positions]:
        """Return the positions of the rows and columns of a layer, counted in groups."""
        return (self._positions[name],)

    def release_model(self) -> None:
        """Do nothing, because this record holds no model."""

    def __getitem__(self, name: str) -> GroupedMatrix:
        return self._matrices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._matrices)

    def __len__(self) -> int:
        return len(self._matrices)


def grouped(reading: "Reading", units: str, *, progress: Callable[[int, int], None] | None = None) -> Any:
    """Return the same reading between words or lines instead of tokens, for any view.

    Args:
        reading: one text through one model, or its rollout.
        units: "words", "lines", or "tokens" for the reading itself.
        progress: called after each layer with (layers done, layers in all).

    Raises:
        OptionError: the reading is of a picture, it has too many words, or there is no such unit.

    Memory: the weights between units, at most 134 MB.
    """
    if units not in UNITS:
        raise OptionError(message("there is no unit %(units)r. Use tokens, words or lines.", units=units))
    if units == "tokens":
        return reading
    if reading.grid is not None:
        raise OptionError(message("a picture has patches, which make no words. Show its tokens."))
    pieces = reading.pieces or spaced(reading.tokens, reading.special)
    sides = {"input": groups(pieces, reading.special, units, reading.segments)}
    if reading.sound is not None:  # frames make no words; those of the decoder do
        sides["input"] = [range(place, place + 1) for place in range(len(reading.tokens))]
    if reading.decoder is not None:
        words = spaced(reading.decoder.tokens, reading.decoder.special)
        sides["decoder"] = groups(words, reading.decoder.special, units)
    record: Any = GroupedRecord(units, reading.record.missed)
    axes = {name: _axes(reading.record.positions(name)[-1], sides) for name in reading.record}
    _check_size(reading, axes)
    for name, matrix in reading.record.items():
        (rows, queries), (cols, keys) = axes[name]
        record.add(name, GroupedMatrix(_together(matrix, rows, cols)), Positions(queries, keys))
        if progress is not None:
            progress(len(record), len(reading.record))
    names = _names(reading.tokens, pieces, reading.special, sides["input"])
    decoder = reading.decoder
    if decoder is not None:
        own = _names(decoder.tokens, words, decoder.special, sides["decoder"])
        added = [decoder.special[group[0]] for group in sides["decoder"]]
        decoder = replace(decoder, tokens=own, token_ids=list(range(len(own))), special=added)
    return replace(
        reading,
        record=record,
        tokens=names,
        token_ids=list(range(len(names))),
        special=[bool(reading.special[group[0]]) for group in sides["input"]],
        segments=[reading.segments[group[0]] for group in sides["input"]],
        decoder=decoder,
        pieces=None,
        pictures=tuple(_moved(picture, sides["input"]) for picture in reading.pictures),
    )


def _moved(picture: "Grid", places: list[range]) -> "Grid":
    """Return a picture at its place among groups: each of its patches is a group of its own."""
    return replace(picture, first=next(number for number, group in enumerate(places) if picture.first in group))


def groups(
    pieces: Sequence[str], special: Sequence[bool], units: str, segments: Sequence[int] | None = None
) -> list[range]:
    """Return the ranges of tokens that form words or lines. Special tokens, and two texts, are never joined.

    A word ends at white space. In scripts without it, each token is a word.

    Args:
        pieces: the text of each token, with the space before it.
        special: whether the tokenizer added it.
        units: "words" or "lines".
        segments: which text each token is of.

    >>> groups(["[CLS]", "un", "related", " words"], [True, False, False, False], "words")
    [range(0, 1), range(1, 3), range(3, 4)]
    >>> groups(["a", " kite", " flew", ".\\n", "It", " fell"], [False] * 6, "lines")
    [range(0, 4), range(4, 6)]
    """
    starts, text = [], ""
    for place, piece in enumerate(pieces):
        apart = place == 0 or special[place] or special[place - 1]
        if segments is not None and place:
            apart = apart or segments[place] != segments[place - 1]
        before = piece[: len(piece) - len(piece.lstrip())]  # a piece of only white space ends the group before it
        if units == "lines":
            apart = apart or "\n" in text.lstrip() or ("\n" in before and before != piece)
        else:
            apart = apart or bool(before) or bool(text.strip() and text[-1:].isspace())
            apart = apart or bool(text.strip() and _UNSPACED.match(piece))
        if apart:
            starts.append(place)
            text = ""
        text += piece
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(pieces)], strict=True)]


def spaced(tokens: Sequence[str], special: Sequence[bool]) -> list[str]:
    """Return the tokens with their spaces: WordPiece writes none, but "##" inside a word.

    >>> spaced(["un", "##related", "words"], [False] * 3)
    [' un', 'related', ' words']
    """
    own = [token for token, is_special in zip(tokens, special, strict=True) if not is_special]
    if any(letter.isspace() for token in own for letter in token):
        return list(tokens)
    return [token.removeprefix("##") if token.startswith("##") else f" {token}" for token in tokens]


def _names(tokens: Sequence[str], pieces: Sequence[str], special: Sequence[bool], places: list[range]) -> list[str]:
    """Return the text of each group. A special token keeps its name."""
    names = []
    for group in places:
        text = tokens[group[0]] if special[group[0]] else "".join(pieces[place] for place in group)
        names.append(_PARTS.sub(r"\1", text).strip() or text)
    return names


def _axes(where: Positions, sides: Mapping[str, list[range]]) -> tuple[tuple[Tensor, Axis], tuple[Tensor, Axis]]:
    """Return, for queries and for keys, the group of each entry and the groups' positions."""
    return _axis(where.queries, sides), _axis(where.keys, sides)


def _axis(axis: Axis, sides: Mapping[str, list[range]]) -> tuple[Tensor, Axis]:
    places = sides.get(axis.sequence)
    if places is None:
        return torch.arange(len(axis.positions)), axis
    owner = [number for number, group in enumerate(places) for _ in group]
    owners = [owner[place] if place < len(owner) else len(places) + place for place in axis.positions]
    present = list(dict.fromkeys(owners))
    number = {group: index for index, group in enumerate(present)}
    is_run = present == list(range(present[0], present[0] + len(present))) if present else True
    positions = range(present[0], present[0] + len(present)) if present and is_run else tuple(present)
    return torch.tensor([number[group] for group in owners], dtype=torch.long), Axis(axis.sequence, positions)


def _check_size(reading: "Reading", axes: Mapping[str, Any]) -> None:
    """Check that the weights between groups fit.

    Raises:
        OptionError: they do not.
    """
    sizes = (
        matrix.shape[1] * len(axes[name][0][1].positions) * len(axes[name][1][1].positions)
        for name, matrix in reading.record.items()
    )
    total = sum(sizes)
    if total > MOST:
        raise OptionError(
            message(
                "the words of this text have %(total)s weights in all heads, and at most %(most)s are put together. "
                "Show lines or tokens, or a shorter text.",
                total=total,
                most=MOST,
            )
        )


def _together(matrix: Any, rows: Tensor, cols: Tensor) -> Tensor:
    """Return (1, H, G, K): the weights between groups, computed for a block of queries at a time."""
    _, heads, length, keys = matrix.shape
    down, across = int(rows.max()) + 1, int(cols.max()) + 1
    total = torch.zeros(heads, down, across)
    tall = max(1, BLOCK // (heads * keys))
    for start in range(0, length, tall):
        stop = min(start + tall, length)
        if isinstance(matrix, AttentionMatrix):
            weights = matrix.rows(start, stop).to_dense()[0].float().cpu()
        else:
            weights = matrix[0, 0, start:stop][None].float().cpu()
        part = torch.zeros(heads, stop - start, across).index_add_(2, cols, weights)
        total.index_add_(1, rows[start:stop], part)
    return (total / torch.bincount(rows, minlength=down)[:, None])[None]
