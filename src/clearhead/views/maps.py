"""Maps of heads: the weights if they fit, else means over tiles; which cells are masked; a terminal's shades."""

from math import sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clearhead.matrix import AttentionMatrix

Array = NDArray[np.float64]
THUMB = 24  # cells a side of a small map
# In a terminal: shades that are readable without colour, the sign of a masked cell, and Rich's names of the colours.
SHADES = " ░▒▓█"
MASKED = "╱"
WEIGHT, QUERY, KEY, QUIET = "blue", "bright_red", "green", "dim"


def numbers(tensor: torch.Tensor) -> Array:
    """Return a tensor's values as a float64 array, from any device and dtype."""
    return tensor.detach().to(device="cpu").double().numpy()


def tiles(matrix: AttentionMatrix, rows: int, cols: int) -> Array:
    """Return (H, r, c): the weights if L ≤ rows and S ≤ cols, else means over tiles."""
    _, _, length, keys = matrix.shape
    if length <= rows and keys <= cols:
        half = matrix.dtype == torch.float16  # whose entries below 6e-8 would read as masked
        return numbers(matrix.pooled(length, keys) if half else matrix.to_dense())[0]
    return numbers(matrix.pooled(min(rows, length), min(cols, keys)))[0]


def hidden(matrix: Any, weights: Array, region: tuple[slice, slice] | None = None) -> NDArray[np.bool_]:
    """Return which cells of a map, of the whole matrix or of a region, are entirely masked: (H, r, c).

    An attention matrix knows its mask. In a rollout, cells without weight in any head count as masked.
    """
    if isinstance(matrix, AttentionMatrix):
        share = matrix.allowed(*weights.shape[1:], region=region)[0]
        return np.broadcast_to(numbers(share) == 0, weights.shape)
    return np.broadcast_to((weights == 0).all(0), weights.shape)


def shades(weights: Array, top: float) -> str:
    """Return a character per weight: the square root of its share of `top`, in five shades. Above 0.2 % it is visible.

    >>> shades(np.array([0.0, 0.05, 0.2, 0.5, 1.0]), 1.0)
    ' ░▒▓█'
    """
    if top <= 0:
        return " " * len(weights)
    return "".join(SHADES[level(weight, top)] for weight in np.clip(weights, 0, top))


def level(weight: float, top: float) -> int:
    """Return the index of the shade, 0 to 4: the square root of the weight's share of `top`."""
    return min(4, round(4 * sqrt(weight / top))) if top > 0 else 0
