"""What each word of a text looks at in its picture, or in its sound."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from clearhead.views.maps import Array, numbers
from clearhead.views.token_axes import TokenAxis, layer_token_axes

if TYPE_CHECKING:
    from clearhead.capture import Grid, Reading

BLOCK = 2**22  # weights in memory at a time
MOST_WORDS = 12  # drawn over a picture


@dataclass(frozen=True, slots=True)
class Look:
    """What one token looks at.

    Attributes:
        token: its text.
        weights: (rows, cols) over the patches of a picture, or (frames,) over a sound.
    """

    token: str
    weights: Array

    @property
    def total(self) -> float:
        """The weight on the whole picture or sound."""
        return float(self.weights.sum())


def pictures_of(reading: "Reading") -> tuple["Grid", ...]:
    """Return the grids of a reading: its only picture, those among its words, or none."""
    return reading.pictures or (() if reading.grid is None else (reading.grid,))


def at_picture(reading: "Reading", layer: int, head: int, picture: "Grid") -> list[Look]:
    """Return what each word after a picture looks at in it; special tokens and other patches are no words."""
    queries, keys = layer_token_axes(reading, layer)
    if not (is_over_input(queries) and is_over_input(keys)):
        return []
    matrix = list(reading.record.values())[layer]
    return [
        Look(
            queries.tokens[place],
            numbers(matrix[0, head, place])[picture.places()].reshape(picture.rows, picture.cols),
        )
        for place in range(picture.stop, len(queries.tokens))
        if not queries.special[place]
    ]


def at_sound(reading: "Reading", layer: int, head: int) -> list[Look]:
    """Return what each token of the decoder looks at in the sound; none for a layer that does not read it."""
    queries, keys = layer_token_axes(reading, layer)
    if reading.sound is None or queries.sequence != "decoder" or not is_over_input(keys):
        return []
    weights = numbers(list(reading.record.values())[layer][0, head])
    return [Look(token, row) for token, row in zip(queries.tokens, weights, strict=True)]


def largest(reading: "Reading", layer: int) -> Array:
    """Return (H,): the most that a word gives to one patch of any picture, or to one moment of the sound.

    All words of a head are drawn on one scale, which ends there. It is 0 where no word looks at a picture or a sound.
    """
    queries, keys = layer_token_axes(reading, layer)
    matrix = list(reading.record.values())[layer]
    top = np.zeros(matrix.shape[1])
    looked: list[tuple[list[int], list[int]]] = []  # words, and the keys that are patches or moments
    if is_over_input(queries) and is_over_input(keys):
        for picture in reading.pictures:
            words = [place for place in range(picture.stop, len(queries.tokens)) if not queries.special[place]]
            looked.append((words, picture.places()))
    elif reading.sound is not None and queries.sequence == "decoder" and is_over_input(keys):
        looked.append((list(range(len(queries.tokens))), list(range(reading.sound.frames))))
    step = max(1, BLOCK // (matrix.shape[1] * matrix.shape[3]))
    for words, places in looked:
        for start in range(0, len(words), step):
            weights = numbers(matrix[0, :, torch.tensor(words[start : start + step])])
            top = np.maximum(top, weights[:, :, places].max((1, 2)))
    return top


def is_over_input(axis: TokenAxis) -> bool:
    """Return whether an axis runs along all tokens of the input, in order, so that patches and frames have places."""
    return axis.sequence == "input" and axis.whole


def strongest(looks: list[Look], most: int) -> list[Look]:
    """Return those with the most weight on the picture or sound, in the order of the text."""
    kept = sorted(range(len(looks)), key=lambda place: -looks[place].total)[:most]
    return [looks[place] for place in sorted(kept)]
