"""The mean over the heads of a matrix: not a softmax any more, and still never stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from clearhead.arguments import checked
from clearhead.errors import OptionError
from clearhead.matrix.logits import Block, Logits

if TYPE_CHECKING:
    from clearhead.matrix.matrix import AttentionMatrix


class HeadMean:
    """1/H · Σₕ A[:, h], shape (B, 1, L, S). Made by `AttentionMatrix.mean_heads()`.

    What is linear in A is the mean of the heads' answers; the rest takes one pass of blocks over all heads at once.
    """

    def __init__(self, matrix: AttentionMatrix) -> None:
        self._matrix = matrix

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, 1, L, S)."""
        batch, _, rows, keys = self._matrix.shape
        return batch, 1, rows, keys

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the matrix whose heads it averages."""
        return self._matrix.dtype

    @property
    def device(self) -> torch.device:
        """The device of the matrix whose heads it averages."""
        return self._matrix.device

    @property
    def mT(self) -> TransposedMean:
        """The transpose, as lazy as the mean itself."""
        return TransposedMean(self._matrix)

    @checked()
    def __matmul__(self, columns: Tensor) -> Tensor:
        """mean @ X, as torch.matmul: (B, 1, L) or (B, 1, L, W)."""
        return (self._matrix @ columns).mean(1, keepdim=True)

    def __getitem__(self, key: Any) -> Tensor:
        """Entries, as `mean.to_dense()[key]`; `key` is one to four ints or slices."""
        batch, head, rows, cols = _four(key)
        part = self._matrix[batch if isinstance(batch, slice) else slice(batch, batch + 1 or None), :, rows, cols]
        part = part.mean(1, keepdim=True)[:, head]
        return part if isinstance(batch, slice) else part[0]

    def to_dense(self, *, limit: int | None = None) -> Tensor:
        """(B, 1, L, S). Refuses as `AttentionMatrix.to_dense` does: all heads are made on the way."""
        options = {} if limit is None else {"limit": limit}
        return self._matrix.to_dense(**options).mean(1, keepdim=True)

    def received(self) -> Tensor:
        """(B, 1, S): column sums."""
        return self._matrix.received().mean(1, keepdim=True)

    def mean_distance(self, *, offset: int = 0) -> Tensor:
        """(B, 1, L), positions."""
        return self._matrix.mean_distance(offset=offset).mean(1, keepdim=True)

    def mass_on(self, keys: Any) -> Tensor:
        """(B, 1, L), weights."""
        return self._matrix.mass_on(keys).mean(1, keepdim=True)

    def mass_within(self, window: int, *, offset: int = 0) -> Tensor:
        """(B, 1, L), weights."""
        return self._matrix.mass_within(window, offset=offset).mean(1, keepdim=True)

    def pooled(
        self, rows: int, cols: int, *, reduce: Literal["mean"] = "mean", region: tuple[slice, slice] | None = None
    ) -> Tensor:
        """(B, 1, rows, cols): the mean weight of each cell."""
        if reduce != "mean":
            raise OptionError("the mean over heads is pooled by mean only; choose a head with .heads(h) for 'max'.")
        return self._matrix.pooled(rows, cols, region=region).mean(1, keepdim=True)

    def entropy(self) -> Tensor:
        """(B, 1, L), nats: the entropy of the mean, which is at least the mean of the entropies."""
        return self._rowwise(lambda weights: torch.special.entr(weights).sum(-1))

    def maximum(self) -> Tensor:
        """(B, 1, L): the largest weight of each row."""
        return self._rowwise(lambda weights: weights.amax(-1))

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """(values, indices), each (B, 1, L, k), largest first."""
        keys = self.shape[3]
        if not 1 <= k <= keys:
            raise OptionError(f"topk(k={k}) asks of rows of {keys} keys. Use 1 <= k <= {keys}.")
        values = self._rowwise(lambda weights: weights.topk(k, dim=-1).values)
        return values, self._rowwise(lambda weights: weights.topk(k, dim=-1).indices)

    def _rowwise(self, reduce: Any) -> Tensor:
        """Reduce the rows of the mean, a few rows of all heads at a time."""
        logits, lse = self._matrix._wide, self._matrix._wide_lse
        batches, heads, rows, _ = logits.shape
        if batches * rows == 0:
            row = reduce(lse.new_zeros(rows, logits.shape[3]))
            return row.new_empty(batches, 1, *row.shape)
        tall = _tall(logits)
        answers = []
        for batch in range(batches):
            parts = []
            for start in range(0, rows, tall):
                part_rows, every = slice(start, min(start + tall, rows)), slice(0, heads)
                block = Block(batch, every, part_rows, slice(None), logits.block(batch, every, part_rows, slice(None)))
                parts.append(reduce(block.weights(lse).mean(0)))
            answers.append(torch.cat(parts))
        return torch.stack(answers)[:, None]


class TransposedMean:
    """The transpose of a HeadMean, (B, 1, S, L): multiply with `@`."""

    def __init__(self, matrix: AttentionMatrix) -> None:
        self._matrix = matrix

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, 1, S, L)."""
        batch, _, rows, keys = self._matrix.shape
        return batch, 1, keys, rows

    @checked()
    def __matmul__(self, columns: Tensor) -> Tensor:
        """meanᵀ @ Y, as torch.matmul: (B, 1, S) or (B, 1, S, W)."""
        return (self._matrix.mT @ columns).mean(1, keepdim=True)


def _tall(logits: Logits) -> int:
    """Rows a block of all heads may have."""
    from clearhead.matrix import logits as walk

    return max(walk.BLOCK // max(logits.shape[1] * logits.shape[3], 1), 1)


def _four(key: Any) -> tuple[Any, Any, Any, Any]:
    parts = list(key) if isinstance(key, tuple) else [key]
    if any(part is Ellipsis for part in parts):
        where = parts.index(Ellipsis)
        parts[where : where + 1] = [slice(None)] * (5 - len(parts))
    if len(parts) > 4 or not all(isinstance(part, (int, slice)) for part in parts):
        raise OptionError(f"the mean over heads is indexed by up to four ints or slices, not by {key!r}.")
    parts += [slice(None)] * (4 - len(parts))
    return parts[0], parts[1], parts[2], parts[3]
