"""Contributions: what each head adds to the residual stream at each position, (B, H, L, E), computed on use."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from clearhead.errors import DtypeError, ShapeError


class Contributions:
    """The output of each head through its part of the output projection, (B, H, L, E), not stored.

    Summed over heads, and with the projection's bias, this is what the attention layer adds to the residual stream
    (before a norm that follows it, if any).

    Args:
        z: (B, H, L, D_v), the heads' outputs.
        weight: (H, D_v, E), each head's part of the output projection.

    Memory: references to both; an index or `to_dense` computes the part asked for.

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", section "Attention Heads as
    Independent and Additive".

    Example:
        >>> import torch
        >>> C = Contributions(torch.ones(1, 2, 3, 5), torch.ones(2, 5, 7))
        >>> C.shape, C[0, 1, 2].tolist()
        ((1, 2, 3, 7), [5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0])
        >>> C.along(torch.eye(7)[0]).shape, C.norms().shape
        (torch.Size([1, 2, 3]), torch.Size([1, 2, 3]))
    """

    def __init__(self, z: Tensor, weight: Tensor) -> None:
        self._z, self._weight = z, weight.to(z.dtype)

    def __repr__(self) -> str:
        return "Contributions({})".format(", ".join(f"{a}={n}" for a, n in zip("BHLE", self.shape, strict=True)))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, L, E)."""
        batch, heads, length, _ = self._z.shape
        return batch, heads, length, self._weight.shape[-1]

    def __getitem__(self, key: Any) -> Tensor:
        """Index like a tensor (B, H, L, E). Only the requested entries, heads and positions are computed."""
        key = key if isinstance(key, tuple) else (key,)
        if len(key) > 4 or not all(type(part) in (int, slice) for part in key):
            return self.to_dense()[key]
        ranges = [
            part if isinstance(part, slice) else _kept(part, size) for part, size in zip(key, self.shape, strict=False)
        ]
        ranges += [slice(None)] * (4 - len(ranges))
        batch, heads, rows, width = ranges
        part = self._z[batch, heads, rows] @ self._weight[heads][..., width]
        return part[tuple(0 if isinstance(place, int) else slice(None) for place in key)]

    def to_dense(self) -> Tensor:
        """The whole (B, H, L, E), stored. Memory: H times the layer's output."""
        return self._z @ self._weight

    def sum(self) -> Tensor:
        """Return (B, L, E): the sum over heads, without the projection's bias. Memory: never H times the result."""
        batch, heads, length, width = self._z.shape
        merged = self._z.transpose(1, 2).reshape(batch, length, heads * width)
        return merged @ self._weight.reshape(heads * width, -1)

    def norms(self) -> Tensor:
        """(B, H, L): the Euclidean length of each contribution.

        Source: Kobayashi et al. 2020, "Attention is Not Only a Weight", section 2.2, for whole heads.
        """
        gram = self._weight @ self._weight.mT  # ‖z W‖² = z (W Wᵀ) zᵀ: nothing of size L·E
        return ((self._z @ gram) * self._z).sum(-1).clamp_min(0.0).sqrt()

    def along(self, direction: Tensor) -> Tensor:
        """The part of each contribution along a direction of the residual stream: direct logit attribution.

        With a row of the unembedding as direction this is what each head adds to that token's logit, before the final
        norm; with the difference of two rows, to the difference of their logits.

        Args:
            direction: (E,) -> (B, H, L), or several, (E, n) -> (B, H, L, n).

        Raises:
            DtypeError: it is not a tensor of floating point.
            ShapeError: it has another number of components.

        Source: Elhage et al. 2021; Wang et al. 2022, "Interpretability in the Wild", section 3.
        """
        if not isinstance(direction, Tensor) or not direction.is_floating_point():
            raise DtypeError(
                f"direction is {getattr(direction, 'dtype', None) or type(direction).__name__}, expected a tensor of "
                "floating point: a row of the unembedding, lm_head.weight[token]."
            )
        if direction.dim() not in (1, 2) or direction.shape[0] != self.shape[3]:
            raise ShapeError(
                f"direction has shape {tuple(direction.shape)}, expected ({self.shape[3]},) or ({self.shape[3]}, n), "
                "axis E first. Give a row of the unembedding, lm_head.weight[token]."
            )
        columns = direction.detach().to(self._z.dtype)
        parts = self._z @ (self._weight @ (columns if columns.dim() == 2 else columns[:, None]))
        return parts if direction.dim() == 2 else parts.squeeze(-1)


def _kept(place: int, size: int) -> slice:
    """Return an index as a slice of length one, which keeps the axis until the product is computed."""
    if not -size <= place < size:
        raise IndexError(f"index {place} is out of range for an axis of {size}.")
    return slice(place % size, place % size + 1)
