"""Score a whole record: every head of every layer, by the positions of its queries and keys."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clearhead.capture.scoring.head_scores import HeadScores, Side, Text, score_head
from clearhead.errors import OptionError

if TYPE_CHECKING:
    from clearhead.capture.record import Record


def score_calls(
    record: Record,
    token_ids: Tensor | None,
    special: Sequence[bool] | None = None,
    *,
    decoder_token_ids: Tensor | None = None,
    decoder_special: Sequence[bool] | None = None,
) -> list[HeadScores]:
    """Return one row per head, as described in `capture.score_record`. Scores that need tokens are NaN without ids."""
    whole = record.joined()
    for missed in whole.missed[len(record.missed) :]:
        warnings.warn(f"score_record: {missed.name}: {missed.reason}.", RuntimeWarning, stacklevel=3)
    texts = {
        "input": _text(whole, "input", "token_ids", token_ids, special),
        "decoder": _text(whole, "decoder", "decoder_token_ids", decoder_token_ids, decoder_special),
    }
    rows = []
    for name, matrix in whole.items():
        (where,) = whole.positions(name)
        axes = []
        for axis in (where.queries, where.keys):
            text = texts.get(axis.sequence)
            if text is not None and axis.sequence != "other" and text.ids.shape[0] != matrix.shape[0]:
                warnings.warn(
                    f"score_record: {name} has a batch of {matrix.shape[0]}, and the token ids one of "
                    f"{text.ids.shape[0]}, so scores that look at tokens are NaN there. Give one row of ids per entry.",
                    RuntimeWarning,
                    stacklevel=3,
                )
                text = None
            axes.append(Side.of(axis, text, matrix.device))
        rows.extend(score_head(name, matrix, where, *axes))
    return rows


def _text(
    record: Record, sequence: str, argument: str, ids: Tensor | None, special: Sequence[bool] | None
) -> Text | None:
    size = record.length(sequence)
    if ids is None or not size:
        return None
    if not isinstance(ids, Tensor):
        raise OptionError(
            f"{argument} is a {type(ids).__name__}, expected a tensor of shape (B, {size}). "
            f"Write torch.tensor([...]) with one list of token ids for each text."
        )
    if ids.dim() != 2 or ids.shape[1] not in (size, size + 1):
        raise OptionError(
            f"{argument} has shape {tuple(ids.shape)}, and the record has {size} positions. Give (B, {size}): "
            "every token the model read, of a generation the prompt and what was generated."
        )
    if special is not None and len(special) != ids.shape[1]:
        raise OptionError(f"special has {len(special)} entries, and {argument} {ids.shape[1]} tokens. Give one each.")
    return Text(ids, None if special is None else torch.tensor(list(special), dtype=torch.bool))
