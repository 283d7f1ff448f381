"""The statistics of every head of one layer, for each text of a batch: means over the text's queries."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clearhead.matrix import AttentionMatrix
from clearhead.survey.measuring.batches import Batch
from clearhead.survey.measuring.token_kinds import NUMBER, PUNCTUATION, WORD
from clearhead.survey.measuring.weights import Block, blocks

DISTANCES = {"on_self": (0,), "on_next": (1,), "on_near": (-4, -3, -2, 2, 3, 4)}  # key position - query position
LATER = {"first_token", "sink"}  # asked of every query but the first
KINDS = {"on_punctuation": PUNCTUATION, "on_number": NUMBER, "on_word": WORD}


@dataclass(slots=True)
class Positions:
    """What does not change from layer to layer: which keys are of a kind, which queries count.

    Attributes:
        batch: the texts.
        columns: name -> (B, S), 1 where a key is of the kind.
        repeats: (N, 2), the text and position of each query whose token came before in its text.
    """

    batch: Batch
    columns: dict[str, Tensor]
    repeats: Tensor
    _stacked: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._stacked = torch.stack(list(self.columns.values()), -1).float()

    @classmethod
    def of(cls, batch: Batch, kinds: Tensor) -> Positions:
        """Args: kinds: (B, S), as `token_kinds.KindTable` gives them."""
        place = torch.arange(batch.ids.shape[1])
        special = batch.special & batch.mask
        plain = batch.mask & ~special
        columns = {"first": (place == 0).expand_as(special), "separator": special & (place > 0), "on_special": special}
        columns |= {name: plain & (kinds == kind) for name, kind in KINDS.items()}
        return cls(batch, columns, _repeats(batch))

    def masses(self, block: Block) -> dict[str, Tensor]:
        """name -> (B, H, rows): the weight of each row on the keys of each kind."""
        weights = block.weights
        texts, heads, rows, keys = weights.shape
        stacked = self._stacked[block.texts].to(weights.dtype)
        sums = torch.bmm(weights.view(texts, heads * rows, keys), stacked).view(texts, heads, rows, -1)
        return dict(zip(self.columns, sums.unbind(-1), strict=True))


def _repeats(batch: Batch) -> Tensor:
    """The (text, position) of each query that has its own token at an earlier position."""
    order = batch.ids.masked_fill(~batch.mask, -1).sort(stable=True, dim=1)
    again = torch.zeros_like(batch.mask)
    again[:, 1:] = order.values[:, 1:] == order.values[:, :-1]
    seen = torch.zeros_like(again).scatter(1, order.indices, again)
    return (seen & batch.mask).nonzero()


class Sums:
    """Sums over the queries of each text and head, block by block.

    Args:
        positions: of the batch.
        heads: how many.
        wanted: names of statistics.
        rows_lose: whether rows may sum to less than 1, as with sinks.
    """

    def __init__(self, positions: Positions, heads: int, wanted: Iterable[str], *, rows_lose: bool) -> None:
        self._positions, self._wanted, self._rows_lose = positions, set(wanted), rows_lose
        texts, length = positions.batch.mask.shape
        self._sums = {name: torch.zeros(texts, heads, dtype=torch.double) for name in self._wanted}
        self._most = torch.zeros(texts, heads, dtype=torch.double)
        needs_offsets = "positional" in self._wanted
        self._offsets = torch.zeros(texts, heads, 2 * length - 1 if needs_offsets else 0, dtype=torch.long)

    def add(self, block: Block) -> None:
        """Add the rows of a block."""
        texts, rows = block.texts, slice(block.start, block.start + block.weights.shape[2])
        counted = self._positions.batch.mask[texts, rows]
        later = counted & (torch.arange(rows.start, rows.stop) > 0)
        per_row = self._by_entropy(block, counted) | self._by_key(block) | self._by_distance(block)
        for which, names in ((later, LATER), (counted, self._wanted - LATER)):
            if chosen := [name for name in per_row if name in names and name in self._wanted]:
                values = torch.stack([per_row[name].expand(block.entropy.shape) for name in chosen])
                added = (values.double() * which[:, None]).sum(-1)
                for name, sums in zip(chosen, added, strict=True):
                    self._sums[name][texts] += sums
        if self._wanted & {"duplicate_token", "induction"}:
            self._add_repeats(block)
        if "positional" in self._wanted:
            self._add_offsets(block, counted)

    def _by_entropy(self, block: Block, counted: Tensor) -> dict[str, Tensor]:
        if "breadth" in self._wanted:
            most = block.visible.clamp_min(1).double().log() * counted[:, None]
            self._most[block.texts] += most.sum(-1)
        return {"entropy": block.entropy, "breadth": block.entropy, "maximum": block.maximum}

    def _by_key(self, block: Block) -> dict[str, Tensor]:
        needed = {"first_token", "separator", "sink", "on_special", *KINDS}
        if not self._wanted & needed:
            return {}
        masses = self._positions.masses(block)
        masses["first_token"] = masses["first"]
        masses["sink"] = masses["first"] + masses["separator"]
        return masses

    def _by_distance(self, block: Block) -> dict[str, Tensor]:
        rows: dict[str, Tensor] = {}
        if "previous_token" in self._wanted:
            rows["previous_token"] = _diagonal(block, -1)
        if self._wanted & {*DISTANCES, "on_far"}:
            rows |= {name: sum(_diagonal(block, d) for d in ds) for name, ds in DISTANCES.items()}  # type: ignore[misc]
            before = rows["previous_token"] if "previous_token" in rows else _diagonal(block, -1)
            near = before + rows["on_self"] + rows["on_next"] + rows["on_near"]
            rows["on_far"] = (self._mass(block) - near).clamp_min_(0)
        return rows

    def _mass(self, block: Block) -> Tensor:
        """(B, H or 1, rows): what the weights of each row sum to."""
        return block.weights.sum(-1) if self._rows_lose else (block.visible > 0).to(block.weights.dtype)

    def _add_repeats(self, block: Block) -> None:
        """Add what queries give to earlier places of their own token, and to the tokens that followed it there."""
        text, row = self._positions.repeats.unbind(1)
        stop = block.start + block.weights.shape[2]
        inside = (text >= block.texts.start) & (text < block.texts.stop) & (row >= block.start) & (row < stop)
        text, row = text[inside], row[inside]
        if not len(text):
            return
        ids = self._positions.batch.ids
        weights = block.weights[text - block.texts.start, :, row - block.start]  # (N, H, S)
        place = torch.arange(weights.shape[-1])
        own = ids[text] == ids[text, row][:, None]  # (N, S)
        earlier = own & (place < row[:, None])
        after = torch.zeros_like(own)
        after[:, 1:] = own[:, :-1] & (place[1:] <= row[:, None])
        for name, keys in (("duplicate_token", earlier), ("induction", after)):
            if name in self._wanted:
                given = torch.einsum("nhs,ns->nh", weights, keys.to(weights.dtype)).double()
                self._sums[name].index_add_(0, text, given)

    def _add_offsets(self, block: Block, counted: Tensor) -> None:
        """Count how far each query's strongest key is away."""
        texts, heads, rows, keys = block.weights.shape
        offset = block.best.long() - torch.arange(block.start, block.start + rows) + keys - 1
        ones = counted[:, None].expand(texts, heads, rows).long()
        self._offsets[block.texts].scatter_add_(2, offset, ones)

    def means(self) -> dict[str, Tensor]:
        """name -> (B, H), float64: each statistic; NaN where a text has no query for which it is defined."""
        positions = self._positions
        lengths = positions.batch.lengths.double()
        repeated = torch.zeros_like(lengths).index_add_(
            0, positions.repeats[:, 0], torch.ones(len(positions.repeats), dtype=torch.double)
        )
        has_separator = positions.columns["separator"].any(1)
        counts = dict.fromkeys(self._wanted, lengths)
        counts |= dict.fromkeys(("previous_token", "first_token", "sink"), lengths - 1)
        counts |= dict.fromkeys(("duplicate_token", "induction"), repeated)
        counts["separator"] = lengths.masked_fill(~has_separator, 0)
        made = {name: sums / _some(counts[name])[:, None] for name, sums in self._sums.items()}
        if "breadth" in made:
            made["breadth"] = self._sums["breadth"] / _some(self._most)
        if "positional" in made:
            made["positional"] = self._offsets.amax(-1).double() / lengths[:, None]
        return made


def measure(matrix: AttentionMatrix, positions: Positions, wanted: Iterable[str]) -> dict[str, Tensor]:
    """Return name -> (B, H), float64: the statistics of each text and head of one layer.

    Args:
        matrix: (B, H, L, L): queries and keys are the tokens of the batch.
        positions: of that batch.
        wanted: names of `asks.STATISTICS`, ablation aside.

    Memory: some blocks of `weights.BLOCK` weights.
    """
    rows_lose = matrix._logits.attention.sinks is not None
    sums = Sums(positions, matrix.shape[1], wanted, rows_lose=rows_lose)
    for block in blocks(matrix):
        sums.add(block)
    return sums.means()


def _diagonal(block: Block, distance: int) -> Tensor:
    """(B, H, rows): the weight of each row on the key at that distance; 0 where there is none."""
    weights = block.weights
    rows, keys = weights.shape[2:]
    made = weights.new_zeros(weights.shape[:3])
    first = block.start + distance  # the key of the first row
    start, stop = max(0, -first), min(rows, keys - first)
    if stop > start:
        made[:, :, start:stop] = weights.diagonal(first, dim1=2, dim2=3)
    return made


def _some(counts: Tensor) -> Tensor:
    """Counts with NaN instead of 0 and less."""
    return counts.masked_fill(counts <= 0, math.nan)
