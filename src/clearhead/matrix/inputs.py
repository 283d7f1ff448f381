"""The inputs of a matrix, q, k and v, and the outputs of its heads, z; with grouped heads or without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from clearhead.errors import ShapeError
from clearhead.spec import repeat_heads

if TYPE_CHECKING:
    from clearhead.matrix.logits import Logits


@dataclass(frozen=True, slots=True)
class RowValues:
    """Values that some rows use instead of the shared ones, as Longformer's global tokens do.

    Attributes:
        rows: (B, L), True for the rows that use them.
        value: (B, H, S, D_v).
    """

    rows: Tensor
    value: Tensor


class Inputs:
    """The tensors q, k, v and z of an attention. AttentionMatrix inherits it."""

    _logits: Logits
    _value: Tensor | None
    _row_values: RowValues | None = None

    @property
    def q(self) -> Tensor:
        """The queries, (B, H, L, D), after rotary positions and everything else the model does before the product."""
        return self._logits.query

    @property
    def k(self) -> Tensor:
        """The keys, (B, H_kv, S, D), grouped as in the model; see `per_query_head`."""
        return self._logits.key

    @property
    def v(self) -> Tensor | None:
        """The values, (B, H_kv, S, D_v), grouped as in the model; None if the matrix has none."""
        return self._value

    @property
    def z(self) -> Tensor:
        """Each head's output A @ v, (B, H, L, D_v), before the output projection, in the matrix's dtype.

        Raises:
            OptionError: the matrix has no values.

        Memory: O(B·H·L·D_v). Cost: one forward pass.

        Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits" (r in "Attention Heads as
        Independent and Additive"); TransformerLens calls it hook_z.
        """
        z: Tensor = self @ self._values(None)  # type: ignore[attr-defined]
        own = self._row_values
        return z if own is None else (self @ own.value).where(own.rows[:, None, :, None], z)  # type: ignore[operator]

    def per_query_head(self, grouped: Tensor) -> Tensor:
        """Repeat keys or values of grouped heads, (B, H_kv, S, D) -> (B, H, S, D), one head per query head.

        Query head h reads key head h // (H // H_kv), so `A.per_query_head(A.v)[:, h]` are the values of head h.

        Raises:
            ShapeError: H is not a multiple of the tensor's heads.

        Example:
            >>> import torch
            >>> from clearhead import AttentionMatrix
            >>> q, k = torch.zeros(1, 6, 5, 4), torch.zeros(1, 2, 7, 4)
            >>> A = AttentionMatrix(q, k)
            >>> A.per_query_head(A.k).shape
            torch.Size([1, 6, 7, 4])
        """
        heads = self.q.shape[1]
        if grouped.dim() != 4 or not grouped.shape[1] or heads % grouped.shape[1]:
            raise ShapeError(
                f"grouped has shape {tuple(grouped.shape)}, expected (B, H_kv, S, D) with H_kv dividing {heads}. "
                "Give A.k or A.v."
            )
        return repeat_heads(grouped, heads)


def weight_per_head(out_weight: Tensor, heads: int, width: int) -> Tensor:
    """Return the weight of an output projection as (H, D_v, E), given that or nn.Linear's (E, H·D_v).

    Raises:
        ShapeError: it has neither shape.
    """
    if out_weight.dim() == 2 and out_weight.shape[1] == heads * width:
        return out_weight.mT.reshape(heads, width, -1)
    if out_weight.dim() == 3 and out_weight.shape[:2] == (heads, width):
        return out_weight
    raise ShapeError(
        f"out_weight has shape {tuple(out_weight.shape)}, expected (E, {heads * width}), the weight of an nn.Linear "
        f"over {heads} heads of {width}, or (H, D_v, E) with H={heads}, D_v={width}. Give o_proj.weight; for a Conv1D "
        "(GPT-2), c_proj.weight.T."
    )
