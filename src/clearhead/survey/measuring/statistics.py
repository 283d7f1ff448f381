"""Compute the statistics of every head of one layer for each text of a batch: means over the text's queries."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from clearhead.matrix import AttentionMatrix
from clearhead.survey.measuring.batches import Batch
from clearhead.survey.measuring.repeats import Repeats, pairs, repeated
from clearhead.survey.measuring.token_kinds import NUMBER, PUNCTUATION, WORD
from clearhead.survey.measuring.weights import Rows, is_short

NEAR = 4  # keys more than this many positions away are "far"
DISTANCES = {"previous_token": (-1,), "on_self": (0,), "on_next": (1,), "on_near": (-4, -3, -2, 2, 3, 4)}  # key - query
KINDS = {"on_punctuation": PUNCTUATION, "on_number": NUMBER, "on_word": WORD}
COLUMNS = ("first", "separator", "on_special", *KINDS, "all")  # kinds of keys


@dataclass(frozen=True, slots=True)
class Positions:
    """The inputs that all layers share: which keys are of which kind, and which queries count.

    Attributes:
        batch: the texts.
        columns: (B, S, COLUMNS), float32, 1 where a key is of the kind.
        counted: (B, 1, L, 1), float64, 1 for each query that is not padding.
        repeats: where tokens occur more than once in a text.
        pairs: text, query and earlier key of each two occurrences, each (N,); None if the texts are long.
    """

    batch: Batch
    columns: Tensor
    counted: Tensor
    repeats: list[Repeats]
    pairs: tuple[Tensor, Tensor, Tensor] | None

    @classmethod
    def of(cls, batch: Batch, kinds: Tensor) -> Positions:
        """Return the positions of a batch. `kinds`: (B, S), from `token_kinds.KindTable`."""
        place = torch.arange(batch.ids.shape[1])
        special = batch.special & batch.mask
        words = batch.mask & ~special
        columns = [(place == 0).expand_as(special), special & (place > 0), special]
        columns += [words & (kinds == kind) for kind in KINDS.values()]
        columns.append(torch.ones_like(special))
        repeats = repeated(batch)
        listed = pairs(repeats) if is_short(batch.ids.shape[1]) else None
        counted = batch.mask[:, None, :, None].double()
        return cls(batch, torch.stack(columns, -1).float(), counted, repeats, listed)


def measure(matrix: AttentionMatrix, positions: Positions, wanted: Iterable[str]) -> dict[str, Tensor]:
    """Return name -> (B, H), float64: the statistics of each text and head of one layer.

    Args:
        matrix: (B, H, L, L); queries and keys are the tokens of the batch.
        positions: the positions of that batch.
        wanted: names of `asks.STATISTICS`, ablation aside.

    Memory: O(B·H·L), and for texts of up to 256 tokens their B·H·L² weights; longer ones' are never stored.
    """
    names = set(wanted)
    rows = Rows.of(matrix, positions.columns)
    made = _by_row(rows, positions)
    if names & {*DISTANCES, "on_far"}:
        made |= _by_distance(rows, made["all"], positions)
    if names & {"duplicate_token", "induction"}:
        made |= _by_repetition(rows, positions)
    if "breadth" in names:
        made["breadth"] = _breadth(matrix, made["entropy"], positions)
    if "positional" in names:
        made["positional"] = _commonest_offset(rows.best, positions) / positions.batch.lengths[:, None]
    return {name: made[name] for name in wanted}


def _sums(table: Tensor, positions: Positions) -> Tensor:
    """Sum (B, H, L, N) over each text's queries: (B, H, N), float64. As a product of matrices it is slower."""
    return (table * positions.counted).sum(2)


def _by_row(rows: Rows, positions: Positions) -> dict[str, Tensor]:
    """Return the means over the queries of the numbers in `Rows`."""
    table = torch.cat([rows.masses, rows.entropy[..., None], rows.maximum[..., None]], -1)
    every = _sums(table, positions)
    lengths = positions.batch.lengths.double()[:, None]
    sums = dict(zip((*COLUMNS, "entropy", "maximum"), every.unbind(-1), strict=True))
    made = {name: total / lengths for name, total in sums.items()}
    later = every - table[:, :, 0]  # without each text's first query
    others = _or_nan(lengths - 1)
    made["first_token"] = later[..., COLUMNS.index("first")] / others
    made["sink"] = later[..., [COLUMNS.index("first"), COLUMNS.index("separator")]].sum(-1) / others
    has_separator = positions.columns[..., COLUMNS.index("separator")].any(1)
    made["separator"] = made["separator"].masked_fill(~has_separator[:, None], math.nan)
    return made


def _by_distance(rows: Rows, all_keys: Tensor, positions: Positions) -> dict[str, Tensor]:
    """Return the mean weight at some distances. `all_keys`: (B, H), the mean of all weights of a query."""
    near = _sums(rows.near(NEAR), positions)
    lengths = positions.batch.lengths.double()[:, None]
    sums = {name: near[..., [NEAR + place for place in places]].sum(-1) for name, places in DISTANCES.items()}
    made = {name: total / lengths for name, total in sums.items()}
    made["previous_token"] = sums["previous_token"] / _or_nan(lengths - 1)
    made["on_far"] = (all_keys - near.sum(-1) / lengths).clamp_min(0)
    return made


def _by_repetition(rows: Rows, positions: Positions) -> dict[str, Tensor]:
    """For queries whose token occurred before: the mean weight on those places, and on the tokens after them."""
    texts, heads, length, _ = rows.logits.shape
    sums = torch.zeros(texts, heads, 2, dtype=torch.double)
    if positions.pairs is not None:
        text, query, key = positions.pairs
        weights = rows.at(text, query, torch.stack([key, (key + 1).clamp_max(length - 1)], 1))
        sums.index_add_(0, text, weights.double())
    else:
        for repeats in positions.repeats:
            for text, query, key, earlier in repeats.blocks(heads):
                after = (key + 1).clamp_max(length - 1)
                weights = rows.between(text, query, torch.cat([key, after], 1)).unflatten(3, (2, -1))
                sums.index_add_(0, text, weights.mul_(earlier[:, None, :, None]).sum((2, 4)).double())
    counts = torch.zeros(texts, dtype=torch.double)
    for repeats in positions.repeats:
        counts.index_add_(0, repeats.text, repeats.count.double() - 1)
    means = sums / _or_nan(counts)[:, None, None]
    return dict(zip(("duplicate_token", "induction"), means.unbind(2), strict=True))


def _breadth(matrix: AttentionMatrix, entropy: Tensor, positions: Positions) -> Tensor:
    """Return (B, H): entropy as a share of its maximum. `entropy`: (B, H), the mean entropy."""
    visible = matrix.visible()
    visible = visible[:, :1] if visible.stride(1) == 0 else visible  # all heads have the same mask
    most = _sums(visible.clamp_min(1).double().log()[..., None], positions)[..., 0]
    return entropy * positions.batch.lengths[:, None] / _or_nan(most)


def _commonest_offset(best: Tensor, positions: Positions) -> Tensor:
    """Return (B, H): how many queries of each text have their largest weight at the head's commonest distance."""
    texts, heads, length = best.shape
    offset = best - torch.arange(length) + length - 1
    counts = torch.zeros(texts, heads, 2 * length - 1, dtype=torch.long)
    counted = positions.batch.mask[:, None].expand_as(best).long()
    return counts.scatter_add_(2, offset, counted).amax(-1).double()


def _or_nan(counts: Tensor) -> Tensor:
    """Return counts with NaN for values of 0 or less."""
    return counts.masked_fill(counts <= 0, math.nan)
