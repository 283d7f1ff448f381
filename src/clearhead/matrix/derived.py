"""Matrices derived from a matrix: some heads, some rows, the mean over heads, the norms of weighted values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from clearhead.arguments import checked
from clearhead.errors import PlaceError
from clearhead.matrix.inputs import Inputs, RowValues, weight_per_head
from clearhead.matrix.logits import Logits
from clearhead.matrix.mean import HeadMean
from clearhead.matrix.questions.asking import Asked
from clearhead.spec import divide_heads, repeat_heads

if TYPE_CHECKING:
    from clearhead.matrix.matrix import AttentionMatrix


class Derived(Inputs, Asked):
    """Methods of AttentionMatrix that return another lazy matrix."""

    def heads(self, heads: int | slice | Sequence[int] | Tensor) -> AttentionMatrix:
        """Return a matrix of some heads, (B, len(heads), L, S), in the given order; an int selects one head."""
        every = torch.arange(self.shape[1], device="cpu")
        try:
            chosen = every[heads if not isinstance(heads, Sequence) else list(heads)].reshape(-1).to(self.q.device)
        except IndexError as error:
            raise PlaceError(f"heads={heads}: {error}. The matrix has heads 0..{self.shape[1] - 1}.") from error
        own = self._value
        if own is not None:
            own = own[:, chosen // divide_heads(self.shape[1], own.shape[1])]
        lse = None if self._lse is None else self._lse[:, chosen]
        made = self._like(self._logits.heads(chosen), own, lse)
        if self._row_values is not None:
            made._row_values = RowValues(self._row_values.rows, self._row_values.value[:, chosen])
        return made

    def rows(self, start: int, stop: int) -> AttentionMatrix:
        """Return a matrix of some consecutive queries, (B, H, stop - start, S), to process a long matrix in pieces.

        Its queries keep their positions: `A.rows(start, stop).mean_distance()` equals
        `A.mean_distance()[:, :, start:stop]`. A given `offset` is the position of the part's first query. Indices, as
        in `part[b, h, i]` and `part.diagonal(d)`, count from the part's first row.

        Raises:
            PlaceError: not 0 <= start < stop <= L.

        Example:
            >>> import torch
            >>> from clearhead import AttentionMatrix
            >>> q = torch.eye(4).view(1, 1, 4, 4)
            >>> A = AttentionMatrix(q, q, is_causal=True)
            >>> torch.equal(A.rows(1, 3).to_dense(), A.to_dense()[:, :, 1:3])
            True
        """
        if not 0 <= start < stop <= self.shape[2]:
            raise PlaceError(f"rows({start}, {stop}) of a matrix with L={self.shape[2]}. Use 0 <= start < stop <= L.")
        lse = None if self._lse is None else self._lse[:, :, start:stop]
        made = self._like(self._logits.part(slice(start, stop), slice(0, self.shape[3])), self._value, lse)
        if self._row_values is not None:
            made._row_values = RowValues(self._row_values.rows[:, start:stop], self._row_values.value)
        made._first_row = self._first_row + start
        return made

    def mean_heads(self) -> HeadMean:
        """Return the mean over heads, (B, 1, L, S), also lazy."""
        return HeadMean(cast("AttentionMatrix", self))

    @checked()
    def value_weighted(self, value: Tensor | None = None, out_weight: Tensor | None = None) -> AttentionMatrix:
        """Return the matrix of norms ‖aᵢⱼ·f(vⱼ)‖, (B, H, L, S): how much each key contributes to the output.

        Its rows do not sum to 1; it supports every operation of an AttentionMatrix.

        Args:
            value: (B, H_kv, S, D_v); default the matrix's own value.
            out_weight: the weight of the output projection, (E, H·D_v) as in nn.Linear (`o_proj.weight`), or each
                head's part of it, (H, D_v, E). Then f(v) = v @ part; default f(v) = v.

        Source: Kobayashi et al. 2020, "Attention is Not Only a Weight", section 2.2.
        """
        values = self._values(value).to(self._wide.query.dtype)
        norms = _norms(values, out_weight, self.shape[1])
        wide, added = self._wide, norms.log()[:, :, None, :]
        if self._row_values is not None and value is None:
            wide = _with_row_norms(wide, self._row_values, norms, out_weight)
        known = wide.attention.key_bias
        weighted = wide.change(key_bias=added if known is None else known + added, sinks=None)
        return self._like(weighted, values, self._wide_lse)

    def _like(self, logits: Logits, value: Tensor | None, lse: Tensor | None) -> AttentionMatrix:
        """Return a matrix of these inputs, without validation."""
        made = cast("AttentionMatrix", object.__new__(type(self)))
        made._logits, made._value, made._lse, made._first_row = logits, value, lse, self._first_row
        return made


def _norms(values: Tensor, out_weight: Tensor | None, heads: int) -> Tensor:
    """Return the norms of the values, (B, H, S), after each head's part of the output projection if that is given."""
    if out_weight is None:
        return values.norm(dim=-1)
    weight = weight_per_head(out_weight, heads, values.shape[-1]).to(values.dtype)
    # ‖v W‖² = v (W Wᵀ) vᵀ avoids a tensor of size S·E.
    return ((values @ (weight @ weight.mT)) * values).sum(-1).clamp_min(0.0).sqrt()


def _with_row_norms(wide: Logits, own: RowValues, norms: Tensor, out_weight: Tensor | None) -> Logits:
    """Return logits with log(own norm / shared norm) added in some rows, as one more component of query and key."""
    batch, heads, rows, _ = wide.shape
    least = torch.finfo(norms.dtype).tiny
    ratio = _norms(own.value.to(norms.dtype), out_weight, heads).clamp_min(least).log() - norms.clamp_min(least).log()
    component = own.rows[:, None, :, None].to(norms.dtype).expand(batch, heads, rows, 1) / wide.attention.scale
    key = repeat_heads(wide.key, heads)
    return Logits(torch.cat([wide.query, component], -1), torch.cat([key, ratio[..., None]], -1), wide.attention)
