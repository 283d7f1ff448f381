"""Attention rollout: how much each input token reaches each position after several layers, without storing it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clearhead.arguments import checked
from clearhead.errors import OptionError, ShapeError
from clearhead.matrix.matrix import AttentionMatrix


def rollout(matrices: Sequence[AttentionMatrix], *, residual: float = 0.5) -> Rollout:
    """Return the product of the layers' head-averaged matrices, each mixed with the residual path.

    The first layer is the rightmost factor.

    Args:
        matrices: one per layer, in layer order, all (B, H, L, L) with the same B and L.
        residual: the share of the skip connection, in [0, 1): each layer counts as
            residual·I + (1 - residual)·mean over heads of A.

    Returns:
        Rollout, (B, L, L): row i is the share of each input token in position i of the last layer.

    Raises:
        OptionError: no matrices, or residual is not in [0, 1).
        ShapeError: a matrix is not square, or the matrices differ in B or L.

    Memory: nothing of size L·L; a product with W columns takes O(L·W) per head.
    Source: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3.

    Example:
        >>> q = torch.zeros(1, 1, 2, 3)
        >>> R = rollout([AttentionMatrix(q, q)], residual=0.5)
        >>> R @ torch.eye(2)
        tensor([[[0.7500, 0.2500],
                 [0.2500, 0.7500]]])
    """
    matrices = tuple(matrices)
    if not matrices:
        raise OptionError("rollout got no matrices. Give one matrix per layer, in layer order.")
    if not 0 <= residual < 1:
        raise OptionError(f"residual is {residual}, expected 0 <= residual < 1; 0.5 weighs both paths equally.")
    batch, _, rows, _ = matrices[0].shape
    for layer, matrix in enumerate(matrices):
        if (matrix.shape[0], *matrix.shape[2:]) != (batch, rows, rows):
            raise ShapeError(
                f"rollout needs square matrices of the same size: layer {layer} has shape {matrix.shape}, axes "
                f"B,H,L,S, expected B={batch}, L=S={rows}. "
                "Give self-attention layers of one stack; for a generation, those of record.joined()."
            )
    return Rollout(matrices, residual)


class Rollout:
    """A product of layers, (B, L, L), from `rollout`. Multiply it with `@`, or read some rows."""

    def __init__(self, matrices: tuple[AttentionMatrix, ...], residual: float) -> None:
        self._matrices = matrices
        self._residual = residual

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, L, L)."""
        batch, _, rows, _ = self._matrices[0].shape
        return batch, rows, rows

    @checked()
    def __matmul__(self, columns: Tensor) -> Tensor:
        """Return R @ X for X (L,), (L, W) or (B, L, W): (B, L) or (B, L, W)."""
        out, vector = self._operand(columns)
        for matrix in self._matrices:
            mixed = (matrix @ out.unsqueeze(1)).mean(1)
            out = self._residual * out + (1 - self._residual) * mixed
        return out.squeeze(-1) if vector else out

    def rows(self, positions: Sequence[int]) -> Tensor:
        """Return the rows of some positions: (B, len(positions), L), each over the L input tokens."""
        batch, length, _ = self.shape
        picked = torch.zeros(length, len(positions), device=self._matrices[0].device)
        picked[list(positions), list(range(len(positions)))] = 1.0
        out = picked.expand(batch, -1, -1)
        for matrix in reversed(self._matrices):
            mixed = (matrix.mT @ out.unsqueeze(1)).mean(1)
            out = self._residual * out + (1 - self._residual) * mixed
        return out.mT

    def _operand(self, columns: Tensor) -> tuple[Tensor, bool]:
        batch, length, _ = self.shape
        vector = columns.dim() == 1
        out = columns[:, None] if vector else columns
        if out.dim() not in (2, 3) or out.shape[-2] != length or (out.dim() == 3 and out.shape[0] != batch):
            raise ShapeError(
                f"the rollout has shape {self.shape}, axes B,L,L, and cannot be multiplied by a tensor of shape "
                f"{tuple(columns.shape)}. Give (L,), (L,W) or (B,L,W) with L={length}."
            )
        return out.expand(batch, -1, -1) if out.dim() == 2 else out, vector
