"""Maps of heads: the weights if they fit, else means over tiles; and which of their cells are masked."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clearhead.matrix import AttentionMatrix

Array = NDArray[np.float64]
THUMB = 24  # cells a side of a small map


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
