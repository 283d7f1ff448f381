"""`ShardedAttentionMatrix`: the weights of a distributed attention; each rank computes statistics of its own rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from clearhead.arguments import refuse_unreadable
from clearhead.distributed import products
from clearhead.distributed.call import Call
from clearhead.distributed.comparing import Steps, same_question
from clearhead.distributed.exchange import KEYS, around, bits_of
from clearhead.distributed.placement import positions
from clearhead.distributed.row_questions import Part, RowQuestions
from clearhead.errors import DtypeError, OptionError, ShapeError
from clearhead.kernels.calls import checks
from clearhead.kernels.precision import wide
from clearhead.matrix import AttentionMatrix
from clearhead.matrix.questions.pooling import edges
from clearhead.spec import Attention, repeat_heads


class ShardedAttentionMatrix(RowQuestions):
    """The weights of an attention over many ranks, (B, H, L, S), before dropout. Nothing of size L·S is made or sent.

    Returned by `clearhead.distributed.attention` with `return_matrix=True`. Every statistic is a collective call, which
    all ranks make together. Statistics of rows are those of this rank's rows, statistics of keys those of its keys, and
    maps are whole on every rank. Each statistic sends the keys around the ring once. Dense results and matrices of
    other heads or rows are not supported: `[]`, `to_dense`, `heads`, `mean_heads`, `value_weighted`, `diagonal`,
    `why`, `allowed`.

    Raises:
        RanksError: another rank refused its call, or made another one.
    """

    def __init__(
        self, call: Call, query: Tensor, key: Tensor, value: Tensor, attention: Attention, lse: Tensor
    ) -> None:
        own = {name: tensor.detach() for name, tensor in attention.tensors().items()}
        self._call, self._attention = call, attention.change(**own).join_biases()
        self._query, self._key, self._value, self._lse = query.detach(), key.detach(), value.detach(), lse.detach()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, L, S) of the whole matrix."""
        batch, heads = self._query.shape[:2]
        call = self._call
        return batch, heads, call.total(call.query_pieces), call.total(call.key_pieces)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the queries."""
        return self._query.dtype

    @property
    def device(self) -> torch.device:
        """The device of this rank's queries."""
        return self._query.device

    @property
    def rows(self) -> Tensor:
        """The positions of this rank's rows, int64."""
        return positions(self._call.query_pieces[self._call.ranks.rank])

    @property
    def keys(self) -> Tensor:
        """The positions of this rank's keys, int64."""
        return positions(self._call.key_pieces[self._call.ranks.rank])

    @property
    def lse(self) -> Tensor:
        """The natural log of each row's sum of exp(logits), sinks included: (B, H, L_r)."""
        return self._lse

    def __repr__(self) -> str:
        return f"ShardedAttentionMatrix{self.shape}, rank {self._call.ranks.rank} of {self._call.ranks.size}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(AttentionMatrix, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise AttributeError(f"{name} {_NOT_OFFERED}")

    def __getitem__(self, key: Any) -> Tensor:
        raise OptionError(f"[{key}] {_NOT_OFFERED}")

    @property
    def mT(self) -> ShardedTransposed:
        """The transpose, (B, H, S, L): `A.mT @ Y`."""
        return ShardedTransposed(self)

    def __matmul__(self, columns: Tensor) -> Tensor:
        """Return A @ X for this rank's rows, (B, H, L_r, W); X is this rank's part, (B, H or 1, S_r, W).

        Raises:
            ShapeError: X does not have this rank's keys.
        """
        self._agree("A @ X", lambda: self._check_part("X", columns, self._key.shape[2], "keys"))
        return products.times(self, columns[(None,) * (4 - columns.dim())])

    def _check_part(self, name: str, columns: Tensor, held: int, axis: str) -> list[int]:
        """Check that columns are this rank's part; return other sizes, the dtype, and whether a gradient is needed."""
        _check_tensor(name, columns)
        batch, heads = self.shape[:2]
        leading = (1, 1, *columns.shape[:-2])[-2:]
        fits = 2 <= columns.dim() <= 4 and columns.shape[-2] == held
        if not (fits and leading[0] in (1, batch) and leading[1] in (1, heads)):
            raise ShapeError(
                f"this rank holds {held} {axis}, but {name} has shape {tuple(columns.shape)}. Give ({batch}, {heads} "
                f"or 1, {held}, W): this rank's own part, from clearhead.distributed.shard."
            )
        if columns.dtype not in checks.DTYPES:
            raise DtypeError(f"{name} has dtype {columns.dtype}, expected a floating-point dtype. Use {name}.float().")
        learns = columns.requires_grad and torch.is_grad_enabled()
        return [*leading, columns.shape[-1], checks.DTYPES.index(columns.dtype), learns]

    # Statistics of this rank's keys

    def received(self) -> Tensor:
        """Return the weight that each of this rank's keys receives from all rows, (B, H, S_r)."""
        ones = self._zeros((*self._lse.shape, 1)) + 1
        return self.transposed_times(ones)[..., 0]

    def transposed_times(self, columns: Tensor) -> Tensor:
        """Return Aᵀ @ Y for this rank's keys, (B, H, S_r, W); Y is this rank's part, (B, H, L_r, W)."""
        self._agree("A.mT @ Y", lambda: self._check_part("Y", columns, self._query.shape[2], "queries"))
        return products.transposed_times(self, columns[(None,) * (4 - columns.dim())])

    def gradient_times(self, grad_out: Tensor) -> Tensor:
        """Return gradient times attention of this rank's keys, (B, H, S_r), as `AttentionMatrix.gradient_times`.

        Args:
            grad_out: (B, H, L_r, E), the gradient of a loss with respect to this rank's output.
        """
        width = self._value.shape[-1]
        self._agree("gradient_times", lambda: _check_width(grad_out, width))
        values = repeat_heads(self._value, self._query.shape[1]).to(wide(self._query.dtype))
        return (self.transposed_times(grad_out) * values).sum(-1)

    # Maps, whole on every rank

    def pooled(self, rows: int, cols: int, *, reduce: str = "mean") -> Tensor:
        """Return the mean weight of each cell of a small map, (B, H, rows, cols), as `AttentionMatrix.pooled`.

        Memory: O(L_r · cols) per head.
        """
        length, keys = self.shape[2:]

        def start() -> list[Tensor]:
            across = _averaging(keys, cols, self._lse)
            return [across, self._zeros((*self._lse.shape, cols))]

        def add(sums: list[Tensor], part: Part) -> None:
            across, table = sums
            table[:, :, part.rows] += part.matrix @ across[:, part.positions].mT

        _, table = self._fold("pooled", start, add, lambda: _check_cells(rows, cols, reduce))
        with Steps(self._call.ranks, "pooled", self.device):
            down = _averaging(length, rows, self._lse)[:, self.rows]
            return self._call.ranks.sum(down @ table)

    # Parts

    def _agree(self, question: str, check: Any = list) -> None:
        same_question(self._call.ranks, question, check, self.device)

    def _keys(self, tag: int = KEYS) -> Iterator[tuple[int, Tensor]]:
        return around(self._call.ranks, self._key.contiguous(), self._call.shapes(self._call.width), tag)

    def _of(self, owner: int, key: Tensor) -> Iterator[Part]:
        """Yield the parts over an owner's keys. Their lse is that of the whole row, so statistics of parts add up."""
        for block in self._call.blocks(self._attention, owner):
            matrix = AttentionMatrix.of(
                self._query[:, :, block.rows], key[:, :, block.keys], block.attention, lse=self._lse[:, :, block.rows]
            )
            yield Part(matrix, block.rows, block.keys, block.first_row, block.positions)


_NOT_OFFERED = (
    "is not supported across ranks, because no rank holds all keys. Gather query and key with "
    "clearhead.distributed.gather and use clearhead.AttentionMatrix; products, statistics of rows, received and pooled "
    "are supported here."
)


class ShardedTransposed:
    """The transpose of a sharded matrix: `A.mT @ Y` is `A.transposed_times(Y)`."""

    def __init__(self, matrix: ShardedAttentionMatrix) -> None:
        self._matrix = matrix

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, S, L)."""
        batch, heads, length, keys = self._matrix.shape
        return batch, heads, keys, length

    @property
    def mT(self) -> ShardedAttentionMatrix:
        """The original matrix."""
        return self._matrix

    def __matmul__(self, columns: Tensor) -> Tensor:
        return self._matrix.transposed_times(columns)


def _check_tensor(name: str, columns: Any) -> None:
    if not isinstance(columns, Tensor):
        raise DtypeError(f"{name} is a {type(columns).__name__}, expected a torch.Tensor: this rank's own part.")
    refuse_unreadable(**{name: columns})


def _check_width(grad_out: Tensor, width: int) -> list[int]:
    _check_tensor("grad_out", grad_out)
    if grad_out.dim() == 0 or grad_out.shape[-1] != width:
        raise ShapeError(
            f"grad_out has shape {tuple(grad_out.shape)}, expected (B, H, L_r, {width}), the shape of the output."
        )
    return []


def _check_cells(rows: int, cols: int, reduce: str) -> list[int]:
    if reduce != "mean":
        raise OptionError(
            f"reduce is {reduce!r}; across ranks only 'mean' is supported. Use it, or gather query and key with "
            "clearhead.distributed.gather and pool a clearhead.AttentionMatrix."
        )
    if rows < 1 or cols < 1:
        raise OptionError(
            f"pooled got rows={rows}, cols={cols}; expected 1 or more of each. Give how many cells the map has."
        )
    return [rows, cols]


class ShardedRollout:
    """The product of the layers' head-averaged matrices, each mixed with the residual path; see `clearhead.rollout`."""

    def __init__(self, matrices: Sequence[ShardedAttentionMatrix], residual: float) -> None:
        self._matrices, self._residual = tuple(matrices), residual

    def __matmul__(self, columns: Tensor) -> Tensor:
        """Return R @ X for this rank's rows, (B, L_r, W); X is this rank's part, (B, L_r, W)."""
        out, ranks = columns, self._matrices[0]._call.ranks
        same_question(ranks, "rollout", lambda: self._check(columns), self._matrices[0].device)
        for matrix in self._matrices:
            mixed = (matrix @ out.unsqueeze(1)).mean(1)
            out = self._residual * out + (1 - self._residual) * mixed
        return out

    def _check(self, columns: Tensor) -> list[int]:
        """Return what ranks compare: how many layers, and the bits of the residual."""
        _check_tensor("X", columns)
        if columns.dim() not in (2, 3):
            raise ShapeError(f"X has shape {tuple(columns.shape)}, expected (B, L_r, W): this rank's own part.")
        return [len(self._matrices), bits_of(self._residual)]


def rollout(matrices: Sequence[ShardedAttentionMatrix], *, residual: float = 0.5) -> ShardedRollout:
    """Return the attention rollout over sharded matrices, one per layer, in layer order.

    Raises:
        OptionError: no matrices, or residual is not in [0, 1).
        ShapeError: queries and keys do not have the same positions.

    Source: Abnar & Zuidema 2020, section 3.
    """
    if not matrices:
        raise OptionError("rollout got no matrices. Give one matrix per layer, in layer order.")
    if not 0 <= residual < 1:
        raise OptionError(f"residual is {residual}, expected 0 <= residual < 1; 0.5 weighs both paths equally.")
    for layer, matrix in enumerate(matrices):
        if matrix._call.query_pieces != matrix._call.key_pieces:  # of all ranks, so that all raise
            raise ShapeError(
                f"rollout needs square matrices; in layer {layer} the ranks' rows and keys have different positions. "
                "Use self-attention layers."
            )
    return ShardedRollout(matrices, residual)


def _averaging(size: int, cells: int, like: Tensor) -> Tensor:
    """Return (cells, size), in the dtype and on the device of `like`: each row averages the positions of one cell."""
    table = like.new_zeros(cells, size)
    for cell, (first, last) in enumerate(edges(size, cells)):
        table[cell, first:last] = 1.0 / (last - first)
    return table
