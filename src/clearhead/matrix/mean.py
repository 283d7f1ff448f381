"""The mean of a matrix over its heads: no longer a softmax, but still never stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from clearhead.arguments import checked
from clearhead.errors import OptionError
from clearhead.matrix import indexing
from clearhead.matrix import logits as matrix_logits
from clearhead.matrix.logits import Block, Logits

if TYPE_CHECKING:
    from clearhead.matrix.matrix import AttentionMatrix


class HeadMean:
    """The mean over heads, 1/H · Σₕ A[:, h], shape (B, 1, L, S), from `AttentionMatrix.mean_heads()`.

    Statistics that are linear in A are the mean of the heads' statistics; the others take one blockwise pass over all
    heads at once.
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
        """The dtype of the averaged matrix."""
        return self._matrix.dtype

    @property
    def device(self) -> torch.device:
        """The device of the averaged matrix."""
        return self._matrix.device

    @property
    def mT(self) -> TransposedMean:
        """The transpose, also lazy."""
        return TransposedMean(self._matrix)

    @checked()
    def __matmul__(self, columns: Tensor) -> Tensor:
        """Return mean @ X, as torch.matmul: (B, 1, L) or (B, 1, L, W)."""
        return (self._matrix @ columns).mean(1, keepdim=True)

    def __getitem__(self, key: Any) -> Tensor:
        """Return entries, equal to `mean.to_dense()[key]`; `key` is one to four ints or slices.

        Raises:
            OptionError: `key` is something else.
            PlaceError: an int is outside its axis.
            TooLargeError: the part of all heads takes more than 256 MiB.
        """
        batch, head, rows, cols = _four_parts(key)
        batch, head = (
            part if isinstance(part, slice) else indexing.position(name, part, size)
            for name, part, size in (("batch", batch, self.shape[0]), ("head", head, 1))
        )
        part = self._matrix[batch if isinstance(batch, slice) else slice(batch, batch + 1), :, rows, cols]
        part = part.mean(1, keepdim=True)[:, head]
        return part if isinstance(batch, slice) else part[0]

    def to_dense(self, *, limit: int | None = indexing.LIMIT) -> Tensor:
        """Return the dense mean, (B, 1, L, S).

        Args:
            limit: the most bytes that the weights of all heads, which it computes first, may take; default 256 MiB,
                None for no limit.

        Raises:
            TooLargeError: they would take more.
        """
        return self._matrix.to_dense(limit=limit).mean(1, keepdim=True)

    def received(self) -> Tensor:
        """Return the column sums, (B, 1, S)."""
        return self._matrix.received().mean(1, keepdim=True)

    def mean_distance(self, *, offset: int | None = None) -> Tensor:
        """Return the mean distance of each row, (B, 1, L), in positions."""
        return self._matrix.mean_distance(offset=offset).mean(1, keepdim=True)

    def mass_on(self, keys: Any) -> Tensor:
        """Return the weight of each row on some keys, (B, 1, L)."""
        return self._matrix.mass_on(keys).mean(1, keepdim=True)

    def mass_within(self, window: int, *, offset: int | None = None) -> Tensor:
        """Return the weight of each row within a window, (B, 1, L)."""
        return self._matrix.mass_within(window, offset=offset).mean(1, keepdim=True)

    def pooled(
        self, rows: int, cols: int, *, reduce: Literal["mean"] = "mean", region: tuple[slice, slice] | None = None
    ) -> Tensor:
        """Return the mean weight of each cell, (B, 1, rows, cols)."""
        if reduce != "mean":
            raise OptionError(
                f"reduce is {reduce!r}; the mean over heads supports only 'mean'. For 'max', select a head with "
                f".heads(h)."
            )
        return self._matrix.pooled(rows, cols, region=region).mean(1, keepdim=True)

    def entropy(self) -> Tensor:
        """Return the entropy of each row, (B, 1, L), in nats; it is at least the mean of the heads' entropies."""
        return self._rowwise(lambda weights: torch.special.entr(weights).sum(-1))

    def maximum(self) -> Tensor:
        """Return the largest weight of each row, (B, 1, L)."""
        return self._rowwise(lambda weights: weights.amax(-1))

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return (values, indices) of the k largest weights of each row, each (B, 1, L, k), largest first."""
        keys = self.shape[3]
        if not 1 <= k <= keys:
            raise OptionError(f"topk(k={k}) of rows of {keys} keys. Use 1 <= k <= {keys}.")
        values = self._rowwise(lambda weights: weights.topk(k, dim=-1).values)
        return values, self._rowwise(lambda weights: weights.topk(k, dim=-1).indices)

    def _rowwise(self, reduce: Any) -> Tensor:
        """Reduce the rows of the mean, a few rows of all heads at a time."""
        logits, lse = self._matrix._wide, self._matrix._wide_lse
        batches, heads, rows, _ = logits.shape
        if batches * rows == 0:
            row = reduce(lse.new_zeros(rows, logits.shape[3]))
            return row.new_empty(batches, 1, *row.shape)
        step = _rows_per_block(logits)
        answers = []
        for batch in range(batches):
            parts = []
            for start in range(0, rows, step):
                part_rows, every = slice(start, min(start + step, rows)), slice(0, heads)
                block = Block(batch, every, part_rows, slice(None), logits.block(batch, every, part_rows, slice(None)))
                parts.append(reduce(block.weights(lse).mean(0)))
            answers.append(torch.cat(parts))
        return torch.stack(answers)[:, None]


class TransposedMean:
    """The transpose of a HeadMean, (B, 1, S, L). Multiply with `@`."""

    def __init__(self, matrix: AttentionMatrix) -> None:
        self._matrix = matrix

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, 1, S, L)."""
        batch, _, rows, keys = self._matrix.shape
        return batch, 1, keys, rows

    @checked()
    def __matmul__(self, columns: Tensor) -> Tensor:
        """Return meanᵀ @ Y, as torch.matmul: (B, 1, S) or (B, 1, S, W)."""
        return (self._matrix.mT @ columns).mean(1, keepdim=True)


def _rows_per_block(logits: Logits) -> int:
    """Return how many rows of all heads fit in one block."""
    return max(matrix_logits.BLOCK // max(logits.shape[1] * logits.shape[3], 1), 1)


def _four_parts(key: Any) -> tuple[Any, Any, Any, Any]:
    parts = list(key) if isinstance(key, tuple) else [key]
    if any(part is Ellipsis for part in parts):
        where = parts.index(Ellipsis)
        parts[where : where + 1] = [slice(None)] * (5 - len(parts))
    if len(parts) > 4 or not all(isinstance(part, (int, slice)) for part in parts):
        raise OptionError(f"the mean over heads takes up to four ints or slices as an index, got {key!r}.")
    parts += [slice(None)] * (4 - len(parts))
    return parts[0], parts[1], parts[2], parts[3]
