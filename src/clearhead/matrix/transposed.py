"""`TransposedMatrix`: Aᵀ, also lazy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clearhead.arguments import checked
from clearhead.matrix import products

if TYPE_CHECKING:
    from clearhead.matrix.matrix import AttentionMatrix


class TransposedMatrix:
    """Aᵀ, (B, H, S, L), returned by `A.mT`. Multiply with `@`; its own `.mT` is the matrix again."""

    def __init__(self, matrix: AttentionMatrix) -> None:
        self._matrix = matrix

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, S, L)."""
        batch, heads, rows, cols = self._matrix.shape
        return batch, heads, cols, rows

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the transposed matrix."""
        return self._matrix.dtype

    @property
    def device(self) -> torch.device:
        """The device of the transposed matrix."""
        return self._matrix.device

    @property
    def mT(self) -> AttentionMatrix:
        """The original matrix."""
        return self._matrix

    @checked()
    def __matmul__(self, columns: Tensor) -> Tensor:
        """Return Aᵀ @ Y, as torch.matmul: Y is (L,), (L, W) or (..., L, W) with leading axes that broadcast to (B, H).

        Returns:
            (B, H, S) or (B, H, S, W), in the wider of the two dtypes.

        Memory: O((L + S)·(D + W)) per head.
        """
        matrix = self._matrix
        dtype = torch.promote_types(matrix.dtype, columns.dtype)
        wide = matrix._wide
        operand, vector = matrix._columns(columns, wide, axis=2)
        operand = operand.expand(-1, matrix.shape[1], -1, -1)
        out = products.transposed(wide, matrix._wide_lse, operand).to(dtype)
        return out.squeeze(-1) if vector else out
