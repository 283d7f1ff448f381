"""What a matrix was made of, q, k and v, and what its heads give, z: public, with grouped heads or without."""

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
    """Values that some rows read instead of the others', as Longformer's global tokens do.

    Attributes:
        rows: (B, L), True for these rows.
        value: (B, H, S, D_v).
    """

    rows: Tensor
    value: Tensor


class Inputs:
    """The tensors of an attention, in the letters of the literature. AttentionMatrix inherits it."""

    _logits: Logits
    _value: Tensor | None
    _row_values: RowValues | None = None

    @property
    def q(self) -> Tensor:
        """(B, H, L, D): the queries, after rotary positions or anything else the model did before the product."""
        return self._logits.query

    @property
    def k(self) -> Tensor:
        """(B, H_kv, S, D): the keys, as grouped as the model has them; see `per_query_head`."""
        return self._logits.key

    @property
    def v(self) -> Tensor | None:
        """(B, H_kv, S, D_v): the values, as grouped as the model has them; None if the matrix knows none."""
        return self._value

    @property
    def z(self) -> Tensor:
        """(B, H, L, D_v): each head's output A @ v, before the output projection, in the matrix' dtype.

        Raises:
            OptionError: the matrix knows no values.

        Memory: O(B·H·L·D_v). Cost: one forward pass.

        Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits" (r in "Attention Heads as
        Independent and Additive"); TransformerLens calls it hook_z.
        """
        z: Tensor = self @ self._values(None)  # type: ignore[attr-defined]
        own = self._row_values
        return z if own is None else (self @ own.value).where(own.rows[:, None, :, None], z)  # type: ignore[operator]

    def per_query_head(self, grouped: Tensor) -> Tensor:
        """Repeat keys or values of grouped heads, (B, H_kv, S, D) -> (B, H, S, D): one head for each query head.

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
    """The weight of an output projection as (H, D_v, E), from that or from nn.Linear's (E, H·D_v).

    Raises:
        ShapeError: it has neither shape.
    """
    if out_weight.dim() == 2 and out_weight.shape[1] == heads * width:
        return out_weight.mT.reshape(heads, width, -1)
    if out_weight.dim() == 3 and out_weight.shape[:2] == (heads, width):
        return out_weight
    raise ShapeError(
        f"out_weight has shape {tuple(out_weight.shape)}, expected (E, {heads * width}), as the weight of an nn.Linear "
        f"over {heads} heads of {width} is, or (H, D_v, E) with H={heads}, D_v={width}. Give o_proj.weight; of a "
        "Conv1D (GPT-2), c_proj.weight.T."
    )
