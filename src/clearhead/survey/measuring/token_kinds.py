"""Classify tokens as punctuation, numbers or words, in a table over the vocabulary that is built once."""

from __future__ import annotations

import unicodedata
from typing import Any

import torch
from torch import Tensor

from clearhead.capture.models.token_text import letters

WORD, PUNCTUATION, NUMBER = range(3)


def token_kinds(tokenizer: Any, ids: Tensor) -> dict[int, int]:
    """Return the kind of each token that occurs among some ids."""
    present = sorted(set(ids.flatten().tolist()))
    # Decode one at a time: together, the bytes of two tokens may form one character.
    return {number: kind_of(letters(tokenizer, [number])[0]) for number in present}


def kind_of(text: str) -> int:
    """Return the kind of a token from its text: punctuation and symbols only, a number, or a word or piece of one.

    >>> [kind_of(text) for text in (",", " --", "##7", "1.5", "##ing", " the", "x1")]
    [1, 1, 2, 2, 0, 0, 0]
    """
    inside = text.strip().removeprefix("##") or text.strip()
    if inside and all(unicodedata.category(letter)[0] in "PSZ" for letter in inside):
        return PUNCTUATION
    if any(letter.isdigit() for letter in inside) and not any(letter.isalpha() for letter in inside):
        return NUMBER
    return WORD


class KindTable:
    """The kinds of a tokenizer's tokens, looked up once for each token."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, int] = {}

    def __call__(self, ids: Tensor) -> Tensor:
        """Return (B, L): the kind of each token."""
        flat = ids.flatten().tolist()
        new = [number for number in set(flat) if number not in self._known]
        if new:
            self._known |= token_kinds(self._tokenizer, torch.tensor(new))
        return torch.tensor([self._known[number] for number in flat]).view_as(ids)
