"""What each head does, in the field's own names: one row a head, every score between 0 and 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clearhead.capture.observing import observe
from clearhead.capture.reading import Reading
from clearhead.capture.record import Record
from clearhead.errors import OptionError
from clearhead.matrix import AttentionMatrix


@dataclass(frozen=True, slots=True)
class HeadScores:
    """One head's scores, each a mean over the queries it can be asked of; NaN where there is none.

    Attributes:
        layer: the module's name.
        head: the head's index.
        previous_token: weight on the position before (Voita et al. 2019).
        first_token: weight on position 0, from every later position (Xiao et al. 2023, "attention sink").
        duplicate_token: weight on earlier positions that hold the query's own token (Wang et al. 2022).
        induction: weight on earlier positions that follow the query's own token (Olsson et al. 2022).
        separator: weight on the tokenizer's special tokens after the first position (Clark et al. 2019).
        breadth: entropy as a share of the most there could be: 0 = one key, 1 = all alike (narrow or broad).
        positional: share of queries whose strongest key lies at this head's most common relative position (Voita et
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


def scores(reading: Reading) -> list[HeadScores]:
    """Score every head of a reading, in layer order.

    Modules that are no self-attention over these tokens (cross-attention, a decoder's other side) are left out.

    Memory: O(L) a head. Cost: about four forward passes.
    """
    return score_record(reading.record, torch.tensor([reading.token_ids]), reading.special)


def score_record(record: Record, token_ids: Tensor, special: Sequence[bool] | None = None) -> list[HeadScores]:
    """Score every head of a record.

    Args:
        record: from `observe`.
        token_ids: (B, L), what the model read.
        special: for each of the L positions, whether its token is the tokenizer's own; None = none is.
    """
    batch, length = token_ids.shape
    rows = []
    for name, matrix in record.items():
        if (matrix.shape[0], *matrix.shape[2:]) == (batch, length, length):
            rows.extend(_score(name, matrix, token_ids.to(matrix.device), special))
    return rows


def induction_scores(model: nn.Module, *, vocab_size: int, length: int = 50, batch: int = 4, seed: int = 0) -> Tensor:
    """Run the usual probe for induction heads: random tokens, then the same again.

    In the second half, the position after a token's first occurrence predicts what comes next. A head's score is the
    mean weight it puts there.

    Args:
        model: a causal model that takes `input_ids`.
        vocab_size: tokens are drawn from 1..vocab_size - 1, without repetition where there are enough.
        length: tokens before they repeat.
        batch: sequences.
        seed: of the draw.

    Returns:
        (layers, H), between 0 and 1, in layer order.

    Source: Olsson et al. 2022, "In-context Learning and Induction Heads".
    """
    if vocab_size < 3 or length < 2:
        raise OptionError(f"the probe needs vocab_size >= 3 and length >= 2, not {vocab_size} and {length}.")
    make = torch.Generator().manual_seed(seed)
    draws = [torch.randperm(vocab_size - 1, generator=make) + 1 for _ in range(batch)]
    first = torch.stack([draw.repeat(math.ceil(length / len(draw)))[:length] for draw in draws])
    device = next(model.parameters()).device
    tokens = torch.cat([first, first], dim=1).to(device)
    with torch.inference_mode(), observe(model) as record:
        model(input_ids=tokens)
    # Query length + i holds token i again; the key to look at is i + 1.
    return torch.stack([matrix.diagonal(1 - length)[..., 1:].mean((0, 2)) for matrix in record.values()])


def _score(name: str, matrix: AttentionMatrix, tokens: Tensor, special: Sequence[bool] | None) -> list[HeadScores]:
    length = tokens.shape[1]
    place = torch.arange(length, device=tokens.device)
    marks = [] if special is None else [index for index, is_special in enumerate(special) if is_special and index > 0]

    def duplicates(batch: int, rows: Tensor, keys: Tensor) -> Tensor:
        return (tokens[batch, keys] == tokens[batch, rows, None]) & (keys < rows[:, None])

    def followers(batch: int, rows: Tensor, keys: Tensor) -> Tensor:
        before = tokens[batch, (keys - 1).clamp_min(0)]
        return (before == tokens[batch, rows, None]) & (keys > 0) & (keys <= rows[:, None])

    repeated = _seen_before(tokens)
    best = matrix.topk(1)[1].squeeze(-1) - place
    offset, share = _commonest(best)
    most = matrix.visible().clamp_min(1).log()
    none = torch.full(matrix.shape[1:2], math.nan, device=matrix.device)
    columns = {
        "previous_token": matrix.diagonal(-1).mean((0, 2)) if length > 1 else none,
        "first_token": matrix.mass_on([0])[:, :, 1:].mean((0, 2)) if length > 1 else none,
        "duplicate_token": _mean_where(matrix.mass_where(duplicates), repeated),
        "induction": _mean_where(matrix.mass_where(followers), repeated),
        "separator": matrix.mass_on(marks).mean((0, 2)) if marks else none,
        "breadth": matrix.entropy().sum((0, 2)) / most.sum((0, 2)) if length > 1 else none,
        "positional": share,
    }
    table = {column: values.double().tolist() for column, values in columns.items()}
    return [
        HeadScores(layer=name, head=head, offset=offset[head], **{column: table[column][head] for column in table})
        for head in range(matrix.shape[1])
    ]


def _seen_before(tokens: Tensor) -> Tensor:
    """(B, L) boolean: whether the same token stands at an earlier position."""
    seen = torch.zeros_like(tokens, dtype=torch.bool)
    for batch, row in enumerate(tokens.tolist()):
        met: set[int] = set()
        for index, token in enumerate(row):
            seen[batch, index] = token in met
            met.add(token)
    return seen


def _mean_where(mass: Tensor, where: Tensor) -> Tensor:
    """(H,): the mean of (B, H, L) over the (B, L) positions that count."""
    counted = where[:, None].expand_as(mass)
    return mass.masked_fill(~counted, 0.0).sum((0, 2)) / counted.sum((0, 2))


def _commonest(offsets: Tensor) -> tuple[list[int], Tensor]:
    """Of (B, H, L) relative positions: each head's commonest, and the share of queries that have it."""
    heads = offsets.transpose(0, 1).flatten(1)
    commonest = heads.mode(dim=1).values
    return commonest.tolist(), (heads == commonest[:, None]).double().mean(1)
