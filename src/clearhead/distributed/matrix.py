"""`ShardedAttentionMatrix`: the weights of a distributed attention, of which each rank answers for its own rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clearhead.distributed.call import Call
from clearhead.distributed.exchange import KEY_GRADIENTS, VALUES, around
from clearhead.distributed.placement import positions
from clearhead.errors import OptionError, ShapeError
from clearhead.kernels.native.call import wide
from clearhead.matrix import AttentionMatrix
from clearhead.matrix.questions.pooling import edges
from clearhead.spec import Attention


class Part(NamedTuple):
    """Some rows over some keys: a matrix whose rows sum to their share of 1."""

    matrix: AttentionMatrix
    rows: slice
    keys: slice
    positions: slice


class ShardedAttentionMatrix:
    """The weights of an attention over many ranks, (B, H, L, S), before dropout. Nothing of size L·S is made or sent.

    Every question is a collective call: all ranks ask it together. Answers of rows are those of this rank's own rows,
    answers of keys those of its own keys, and maps are whole on every rank. Made by `clearhead.distributed.attention`
    with `return_matrix=True`. Keys travel around the ring once a question.
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
    def rows(self) -> Tensor:
        """The positions of this rank's rows, int64."""
        return positions(self._call.query_pieces[self._call.ranks.rank])

    @property
    def keys(self) -> Tensor:
        """The positions of this rank's keys, int64."""
        return positions(self._call.key_pieces[self._call.ranks.rank])

    @property
    def lse(self) -> Tensor:
        """(B, H, L_r): the natural log of each row's sum of exp(logits), sinks included."""
        return self._lse

    def __repr__(self) -> str:
        return f"ShardedAttentionMatrix{self.shape}, rank {self._call.ranks.rank} of {self._call.ranks.size}"

    # Of this rank's rows

    def entropy(self) -> Tensor:
        """The entropy of each row, (B, H, L_r), in nats."""
        return self._sum_of_rows(lambda part: part.matrix.entropy())

    def maximum(self) -> Tensor:
        """The largest weight of each row, (B, H, L_r)."""
        answer = self._zeros(self._lse.shape)
        for part in self._parts():
            answer[:, :, part.rows] = torch.maximum(answer[:, :, part.rows], part.matrix.maximum())
        return answer

    def mean_distance(self) -> Tensor:
        """How far each query looks, (B, H, L_r), in positions: Σⱼ aᵢⱼ·|i - j|."""
        mine = self.rows

        def far(part: Part) -> Tensor:
            return part.matrix.mean_distance(offset=int(mine[part.rows.start]) - part.positions.start)

        return self._sum_of_rows(far)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """The k largest weights of each row: (values, keys), each (B, H, L_r, k), largest first, the lower key first
        where two are equal. Keys are positions of the whole sequence.

        Raises:
            OptionError: k is not within 1..S.
        """
        total = self.shape[3]
        if not 1 <= k <= total:
            raise OptionError(f"topk(k={k}) asks of rows of {total} keys. Use 1 <= k <= {total}.")
        best = self._zeros((*self._lse.shape, k)) - 1  # less than any weight
        where = torch.arange(k, device=best.device).expand(best.shape).clone()
        for part in self._parts():
            width = part.matrix.shape[3]
            values, keys = part.matrix.topk(min(k, width))
            both = torch.cat([best[:, :, part.rows], values], -1)
            places = torch.cat([where[:, :, part.rows], keys + part.positions.start], -1)
            both, places = _best(both, places, k)
            best[:, :, part.rows], where[:, :, part.rows] = both, places
        return best.clamp_min(0), where

    def __matmul__(self, columns: Tensor) -> Tensor:
        """A @ X for this rank's rows: X is this rank's part, (B, H or 1, S_r, W), and so is the answer, (B, H, L_r, W).

        Raises:
            ShapeError: X does not have this rank's keys.
        """
        held = self._key.shape[2]
        own = columns[(None,) * (4 - columns.dim())]
        if columns.dim() < 2 or own.shape[2] != held:
            raise ShapeError(
                f"this rank holds {held} keys and X has shape {tuple(columns.shape)}. Give (..., {held}, W): this "
                f"rank's own part, as clearhead.distributed.shard cuts it."
            )
        batch, heads = self._query.shape[:2]
        out = self._zeros((batch, heads, self._query.shape[2], own.shape[-1]))
        own = own.expand(batch, -1, -1, -1).contiguous()
        shapes = [(batch, own.shape[1], self._call.held(self._call.key_pieces, owner), own.shape[-1])
                  for owner in range(self._call.ranks.size)]  # fmt: skip
        values = around(self._call.ranks, own, shapes, VALUES)
        for (owner, key), (_, travelling) in zip(self._keys(), values, strict=True):
            for part in self._of(owner, key):
                out[:, :, part.rows] += part.matrix @ travelling[:, :, part.keys]
        return out.to(torch.promote_types(self._query.dtype, columns.dtype))

    # Of this rank's keys

    def received(self) -> Tensor:
        """How much weight each of this rank's keys receives from all rows, (B, H, S_r)."""
        ones = self._zeros((*self._lse.shape, 1)) + 1
        return self.transposed_times(ones)[..., 0]

    def transposed_times(self, columns: Tensor) -> Tensor:
        """Aᵀ @ Y for this rank's keys: Y is this rank's part, (B, H, L_r, W), and the answer (B, H, S_r, W)."""
        ranks = self._call.ranks
        batch, heads, _, width = columns.shape
        behind = transfer = None
        for owner, key in self._keys():
            own = self._zeros((batch, heads, key.shape[2], width))
            for part in self._of(owner, key):
                own[:, :, part.keys] += part.matrix.mT @ columns[:, :, part.rows]
            if transfer is not None and behind is not None:
                transfer.wait()
                own += behind
            if ranks.size > 1:
                following = self._call.held(self._call.key_pieces, (owner - 1) % ranks.size)
                behind = own.new_empty(batch, heads, following, width)
                transfer = ranks.start(ranks.rank + 1, own, ranks.rank - 1, behind, KEY_GRADIENTS)
        if transfer is not None and behind is not None:
            transfer.wait()
            own = behind
        return own

    # Whole, on every rank

    def pooled(self, rows: int, cols: int) -> Tensor:
        """The matrix as a small map, (B, H, rows, cols): the mean weight of each cell, as `AttentionMatrix.pooled`.

        Memory: O(L_r · cols) a head.
        """
        if rows < 1 or cols < 1:
            raise OptionError(f"pooled({rows}, {cols}) has no cells. Use at least 1 × 1.")
        length, keys = self.shape[2:]
        across = _averaging(keys, cols).to(self._lse.dtype)
        table = self._zeros((*self._lse.shape, cols))
        for part in self._parts():
            table[:, :, part.rows] += part.matrix @ across[:, part.positions].mT
        down = _averaging(length, rows).to(self._lse.dtype)[:, self.rows]
        return self._call.ranks.sum(down @ table)

    # Parts

    def _keys(self) -> Iterator[tuple[int, Tensor]]:
        return around(self._call.ranks, self._key.contiguous(), self._call.shapes(self._call.width))

    def _parts(self) -> Iterator[Part]:
        for owner, key in self._keys():
            yield from self._of(owner, key)

    def _of(self, owner: int, key: Tensor) -> Iterator[Part]:
        """The parts over an owner's keys. The lse is that of the whole row, so answers of parts add up."""
        for block in self._call.blocks(self._attention, owner):
            matrix = AttentionMatrix.of(
                self._query[:, :, block.rows], key[:, :, block.keys], block.attention, lse=self._lse[:, :, block.rows]
            )
            yield Part(matrix, block.rows, block.keys, block.positions)

    def _sum_of_rows(self, ask: Callable[[Part], Tensor]) -> Tensor:
        answer = self._zeros(self._lse.shape)
        for part in self._parts():
            answer[:, :, part.rows] += ask(part)
        return answer

    def _zeros(self, shape: Sequence[int]) -> Tensor:
        return self._query.new_zeros(tuple(shape), dtype=wide(self._query.dtype))


class ShardedRollout:
    """The product of layers' head-averaged matrices, each mixed with the residual path; see `clearhead.rollout`."""

    def __init__(self, matrices: Sequence[ShardedAttentionMatrix], residual: float) -> None:
        self._matrices, self._residual = tuple(matrices), residual

    def __matmul__(self, columns: Tensor) -> Tensor:
        """R @ X for this rank's rows: X is this rank's part, (B, L_r, W), and so is the answer."""
        out = columns
        for matrix in self._matrices:
            mixed = (matrix @ out.unsqueeze(1)).mean(1)
            out = self._residual * out + (1 - self._residual) * mixed
        return out


def rollout(matrices: Sequence[ShardedAttentionMatrix], *, residual: float = 0.5) -> ShardedRollout:
    """Attention rollout over sharded matrices, one a layer, in layer order.

    Raises:
        OptionError: no matrices, or residual is not in [0, 1).
        ShapeError: queries and keys are not the same positions.

    Source: Abnar & Zuidema 2020, section 3.
    """
    if not matrices:
        raise OptionError("rollout needs at least one matrix; give one a layer, in layer order.")
    if not 0 <= residual < 1:
        raise OptionError(f"residual is {residual}, expected 0 <= residual < 1; 0.5 weighs both paths alike.")
    for layer, matrix in enumerate(matrices):
        if not torch.equal(matrix.rows, matrix.keys):
            raise ShapeError(f"rollout multiplies square matrices; in layer {layer} this rank's rows are not its keys.")
    return ShardedRollout(matrices, residual)


def _best(values: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest, the lower key first where two are equal."""
    keys, order = keys.sort(dim=-1, stable=True)
    values = values.gather(-1, order)
    values, order = values.sort(dim=-1, descending=True, stable=True)
    return values[..., :k], keys.gather(-1, order)[..., :k]


def _averaging(size: int, cells: int) -> Tensor:
    """(cells, size): each row averages the positions of one cell."""
    table = torch.zeros(cells, size)
    for cell, (first, last) in enumerate(edges(size, cells)):
        table[cell, first:last] = 1.0 / (last - first)
    return table
