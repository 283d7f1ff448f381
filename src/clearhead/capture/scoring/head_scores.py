"""Score the heads of one matrix, by the positions of its queries and keys."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from clearhead.capture.positions import Axis, Positions
from clearhead.matrix import AttentionMatrix


@dataclass(frozen=True, slots=True)
class HeadScores:
    """One head's scores, each a mean over the queries for which it is defined; NaN where there are none.

    Attributes:
        layer: the module's name.
        head: the head's index.
        previous_token: weight on the position before (Voita et al. 2019).
        first_token: weight on position 0, from every later position (Xiao et al. 2023, "attention sink").
        duplicate_token: weight on earlier positions that hold the query's own token (Wang et al. 2022).
        induction: weight on earlier positions that follow the query's own token (Olsson et al. 2022).
        separator: weight on special tokens after the first position (Clark et al. 2019).
        breadth: entropy as a share of its maximum: 0 = one key (narrow), 1 = all keys alike (broad).
        positional: share of queries whose strongest key is at this head's most common relative position (Voita et
            al. 2019 call a head positional from 0.9).
        offset: that relative position, key minus query.
    """

    layer: str
    head: int
    previous_token: float
    first_token: float
    duplicate_token: float
    induction: float
    separator: float
    breadth: float
    positional: float
    offset: int


@dataclass(frozen=True, slots=True)
class Text:
    """The tokens of one sequence: ids (B, T), and whether each is special (T,), None where that is not known."""

    ids: Tensor
    special: Tensor | None


@dataclass(frozen=True, slots=True)
class Side:
    """One axis of a matrix, n entries long.

    Attributes:
        place: (n,) position in the text.
        ids: (B, n) token ids, and `before` those of the preceding positions, -1 if there is no token; None = not known.
        special: (n,) boolean; None = not known.
        is_token: (n,) boolean: whether there is a token at that position.
    """

    place: Tensor
    ids: Tensor | None
    before: Tensor | None
    special: Tensor | None
    is_token: Tensor

    @classmethod
    def of(cls, axis: Axis, text: Text | None, device: torch.device) -> Side:
        place = torch.tensor(list(axis.positions), dtype=torch.long, device=device)
        everywhere = torch.ones_like(place, dtype=torch.bool)
        if text is None:
            return cls(place, None, None, None, everywhere)
        ids = text.ids.to(device)
        size = ids.shape[1]

        def at(where: Tensor) -> Tensor:
            return ids[:, where.clamp(0, size - 1)].masked_fill((where < 0) | (where >= size), -1)

        special = None if text.special is None else text.special.to(device)[place.clamp(max=size - 1)]
        return cls(place, at(place), at(place - 1), special, place < size)


def score_head(name: str, matrix: AttentionMatrix, where: Positions, query: Side, key: Side) -> list[HeadScores]:
    """Return one row per head, with NaN for scores that are not defined for these positions."""
    batch, heads, length, _ = matrix.shape
    padding = _padding(matrix, where, query, key)
    counted = query.is_token.expand(batch, length)
    if padding is not None:
        own = key.place == query.place[:, None]  # (L, S): where a key is the query's own token
        counted = counted & ~(padding[:, None] & own).any(-1)
    none = torch.full((heads,), math.nan, device=matrix.device, dtype=torch.double)
    marks = [] if key.special is None else (key.special & (key.place > 0)).nonzero().flatten().tolist()
    columns = {
        "previous_token": none,
        "first_token": none,
        "duplicate_token": none,
        "induction": none,
        "separator": _mean(matrix.mass_on(marks), counted) if marks else none,
        "breadth": _breadth(matrix, counted),
        "positional": none,
    }
    offset = [0] * heads
    if where.within:
        columns["previous_token"] = _previous(matrix, where, query, key, counted, padding)
        columns["first_token"] = _first(matrix, query, key, counted, padding)
        columns |= _repeats(matrix, query, key, counted)
        best = key.place[matrix.topk(1)[1].squeeze(-1)] - query.place
        offset, columns["positional"] = _commonest(best, counted)
    table = {column: values.double().tolist() for column, values in columns.items()}
    return [
        HeadScores(layer=name, head=head, offset=offset[head], **{column: table[column][head] for column in table})
        for head in range(heads)
    ]


def _padding(matrix: AttentionMatrix, where: Positions, query: Side, key: Side) -> Tensor | None:
    """Return (B, S): keys that no query may attend, not even their own; None if the mask leaves out no key."""
    if not where.within or (matrix._logits.attention.allow is None and matrix._logits.attention.rule is None):
        return None
    seen = (matrix.allowed(1, matrix.shape[3])[:, :, 0] > 0).any(1)
    there = torch.isin(key.place, query.place)
    padding = ~seen & there
    return padding if bool(padding.any()) else None


def _previous(
    matrix: AttentionMatrix, where: Positions, query: Side, key: Side, counted: Tensor, padding: Tensor | None
) -> Tensor:
    """Return the mean weight on the token before, over queries whose preceding token is among the keys."""
    there = torch.isin(query.place - 1, key.place)
    counted = counted & there
    if padding is not None:
        before = key.place == query.place[:, None] - 1
        counted = counted & ~(padding[:, None] & before).any(-1)
    if where.offset is None:
        return _mean(matrix.mass_where(lambda _, rows, keys: key.place[keys] == query.place[rows, None] - 1), counted)
    mass = torch.zeros(matrix.shape[:3], device=matrix.device, dtype=torch.promote_types(matrix.dtype, torch.float32))
    mass[:, :, there] = matrix.diagonal(where.offset - 1).to(mass.dtype)
    return _mean(mass, counted)


def _first(matrix: AttentionMatrix, query: Side, key: Side, counted: Tensor, padding: Tensor | None) -> Tensor:
    """Return the mean weight on the first token that is not padding, from every later query; NaN if it is no key."""
    if int(key.place.min()) != 0:
        return torch.full((matrix.shape[1],), math.nan, device=matrix.device)
    if padding is None:
        first = torch.zeros(matrix.shape[0], 1, dtype=torch.long, device=matrix.device)
        mass = matrix.mass_on((key.place == 0).nonzero().flatten())
    else:
        first = key.place.expand_as(padding).masked_fill(padding, matrix.shape[3]).amin(1, keepdim=True)
        mass = matrix.mass_where(lambda batch, rows, keys: (key.place[keys] == first[batch]).expand(len(rows), -1))
    return _mean(mass, counted & (query.place > first))


def _repeats(matrix: AttentionMatrix, query: Side, key: Side, counted: Tensor) -> dict[str, Tensor]:
    """Return the weight on earlier places of a query's token, and on what followed it there; {} without tokens."""
    ids, others, before = query.ids, key.ids, key.before
    if ids is None or others is None or before is None:
        return {}

    def duplicates(batch: int, rows: Tensor, keys: Tensor) -> Tensor:
        return (others[batch, keys] == ids[batch, rows, None]) & (key.place[keys] < query.place[rows, None])

    def followers(batch: int, rows: Tensor, keys: Tensor) -> Tensor:
        return (before[batch, keys] == ids[batch, rows, None]) & (key.place[keys] <= query.place[rows, None])

    repeated = counted & _seen_before(ids, query, others, key)
    return {
        "duplicate_token": _mean(matrix.mass_where(duplicates), repeated),
        "induction": _mean(matrix.mass_where(followers), repeated),
    }


def _seen_before(ids: Tensor, query: Side, others: Tensor, key: Side) -> Tensor:
    """Return (B, L) boolean: whether a query's token is that of a key at an earlier position."""
    seen = torch.zeros_like(ids, dtype=torch.bool)
    for batch in range(len(ids)):
        first: dict[int, int] = {}
        for token, place in zip(others[batch].tolist(), key.place.tolist(), strict=True):
            first[token] = min(place, first.get(token, place))
        row = zip(ids[batch].tolist(), query.place.tolist(), strict=True)
        seen[batch] = torch.tensor([token >= 0 and first.get(token, place) < place for token, place in row])
    return seen


def _breadth(matrix: AttentionMatrix, counted: Tensor) -> Tensor:
    most = matrix.visible().clamp_min(1).double().log()
    entropy = matrix.entropy().double()
    most, entropy = (values.masked_fill(~counted[:, None], 0.0).sum((0, 2)) for values in (most, entropy))
    return torch.where(most > 0, entropy / most, math.nan)


def _mean(mass: Tensor, where: Tensor) -> Tensor:
    """Return (H,): the mean of (B, H, L) over the (B, L) positions that count."""
    counted = where[:, None].expand_as(mass)
    return mass.double().masked_fill(~counted, 0.0).sum((0, 2)) / counted.sum((0, 2))


def _commonest(offsets: Tensor, counted: Tensor) -> tuple[list[int], Tensor]:
    """Return each head's commonest relative position, of (B, H, L), and the share of queries that have it."""
    if not bool(counted.any()):
        return [0] * offsets.shape[1], torch.full(offsets.shape[1:2], math.nan)
    heads = offsets.transpose(0, 1)[:, counted]
    commonest = heads.mode(dim=1).values
    return commonest.tolist(), (heads == commonest[:, None]).double().mean(1)
