"""The base of all statistics: the logits, lse and values of a matrix, and one sweep of the kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from clearhead.errors import OptionError, ShapeError
from clearhead.kernels import Statistics, Wanted
from clearhead.matrix.logits import Logits
from clearhead.matrix.questions import sweep
from clearhead.spec import divide_heads, repeat_heads


class Asked:
    """The attributes of AttentionMatrix that its statistics read."""

    _logits: Logits
    _value: Tensor | None
    _lse: Tensor | None
    _first_row: int = 0  # the row of the whole matrix that is row 0 of this part; see `rows`

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, L, S)."""
        return self._logits.shape

    @property
    def lse(self) -> Tensor:
        raise NotImplementedError

    @property
    def _wide(self) -> Logits:
        return self._logits.wide()

    @property
    def _wide_lse(self) -> Tensor:
        return self.lse.to(torch.promote_types(self._logits.query.dtype, torch.float32))

    def _values(self, value: Tensor | None) -> Tensor:
        """Return the given values, or the matrix's own, with one head per query head: (B, H, S, D_v)."""
        value = self._value if value is None else value
        batch, heads, _, keys = self.shape
        if value is None:
            raise OptionError(
                "this matrix has no values. Give value=, make it with value=, or record it with "
                "observe(model, values=True)."
            )
        if (
            value.dim() != 4
            or value.shape[0] != batch
            or value.shape[2] != keys
            or divide_heads(heads, value.shape[1]) < 0
        ):
            raise ShapeError(
                f"value has shape {tuple(value.shape)}, expected (B, H_kv, S, D_v) with B={batch}, S={keys} and H_kv "
                f"dividing {heads}."
            )
        return repeat_heads(value, heads)

    def _offset(self, given: int | None) -> int:
        """Return the position of query 0 among the keys: as given, or where `rows` cut this part."""
        return self._first_row if given is None else given

    def _sweep(self, wanted: Wanted) -> Statistics | None:
        if self._lse is None and (both := sweep.in_forward_pass(self._logits, wanted)) is not None:
            self._lse, answer = both
            return answer
        return sweep.ask(self._logits, self._known_lse, wanted)

    def _known_lse(self, progress: sweep.Progress | None = None) -> Tensor:
        """Return the lse, computed at the first call and kept; `progress` is called during the computation."""
        raise NotImplementedError
