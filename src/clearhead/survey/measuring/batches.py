"""Batch texts as token ids, with nearly equal lengths in a batch, so that few positions are padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clearhead.capture import Loaded
from clearhead.errors import ModelError

PADDING = 1 / 8  # close a batch when padding exceeds this share of its positions …
SMALLEST = 1 / 8  # … and it holds at least this share of the tokens that it may have


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one text.

    Attributes:
        text: its index in its part.
        ids, special: the token ids, and whether each is a special token.
        cut: whether the text was longer than the model takes, and cut.
    """

    text: int
    ids: list[int]
    special: list[bool]
    cut: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Some texts as tensors, padded on the right to the longest.

    Attributes:
        texts: the index of each text in its part.
        lengths: (B,), tokens of each text.
        ids: (B, L). special, mask: (B, L), True for special tokens, and for tokens that are not padding.
    """

    texts: list[int]
    lengths: Tensor
    ids: Tensor
    special: Tensor
    mask: Tensor

    @property
    def has_padding(self) -> bool:
        return not bool(self.mask.all())


def tokenize(loaded: Loaded, texts: Sequence[str], max_length: int) -> list[Tokens]:
    """Return the tokens of each text, cut to `max_length`. Texts without tokens are left out."""
    if not texts:
        return []
    encoded = loaded.tokenizer(list(texts), return_special_tokens_mask=True, verbose=False)
    if any(len(ids) > max_length for ids in encoded["input_ids"]):
        whole = [len(ids) for ids in encoded["input_ids"]]
        encoded = loaded.tokenizer(
            list(texts), truncation=True, max_length=max_length, return_special_tokens_mask=True, verbose=False
        )
    else:
        whole = [0] * len(texts)
    rows = zip(encoded["input_ids"], encoded["special_tokens_mask"], whole, strict=True)
    return [
        Tokens(place, ids, [bool(mark) for mark in marks], length > len(ids))
        for place, (ids, marks, length) in enumerate(rows)
        if ids
    ]


def batches(rows: Sequence[Tokens], most_tokens: int, pad: int) -> list[Batch]:
    """Sort texts by length and return them as batches of at most `most_tokens` positions, padding included.

    A longer text has its own batch. The order depends on the texts only.
    """
    ordered = sorted(rows, key=lambda row: (len(row.ids), row.text))
    groups: list[list[Tokens]] = []
    tokens = 0  # tokens in the last group
    for row in ordered:  # lengths increase, so the last text has the width of the batch
        width = len(row.ids)
        positions = (len(groups[-1]) + 1) * width if groups else 0
        too_many = positions > most_tokens
        padded = positions - tokens - width > PADDING * positions and tokens >= SMALLEST * most_tokens
        if groups and not too_many and not padded:
            groups[-1].append(row)
            tokens += width
        else:
            groups.append([row])
            tokens = width
    return [_batch(group, pad) for group in groups]


def _batch(rows: Sequence[Tokens], pad: int) -> Batch:
    lengths = torch.tensor([len(row.ids) for row in rows])
    width = int(lengths.max())
    ids = torch.full((len(rows), width), pad)
    special = torch.zeros(len(rows), width, dtype=torch.bool)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        special[place, : len(row.ids)] = torch.tensor(row.special)
    mask = torch.arange(width) < lengths[:, None]
    return Batch([row.text for row in rows], lengths, ids, special, mask)


def inputs(batch: Batch) -> dict[str, Any]:
    """Return the arguments for a text model. Without padding there is no mask."""
    given = {"input_ids": batch.ids}
    return given | {"attention_mask": batch.mask.long()} if batch.has_padding else given


def pad_id(loaded: Loaded) -> int:
    """Return the token that pads short texts. Any token works, because models also get a mask."""
    pad = getattr(loaded.tokenizer, "pad_token_id", None)
    return int(pad) if pad is not None else 0


def longest(loaded: Loaded, requested: int | None) -> int:
    """Return how many tokens of a text are read: the requested number, or the model's maximum.

    Raises:
        ModelError: the requested number exceeds the model's maximum, or leaves no room beside the special tokens.
    """
    if requested is None:
        return loaded.max_length
    special = len(loaded.tokenizer("")["input_ids"])  # with fewer, tokenizers do not cut at all
    if requested <= special:
        raise ModelError(
            f"--max-length is {requested}, and {loaded.name} adds {special} special tokens to every text. Give "
            f"{special + 1} or more."
        )
    if requested > loaded.max_length:
        raise ModelError(
            f"--max-length is {requested}, and {loaded.name} takes at most {loaded.max_length} tokens. Give less."
        )
    return requested
