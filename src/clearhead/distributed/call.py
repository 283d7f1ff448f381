"""The description of one distributed attention, and the blocks of the logits that a rank computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from clearhead.distributed.exchange import Ranks
from clearhead.distributed.placement import Piece
from clearhead.masks import Bias, BlockState, Mask
from clearhead.spec import Attention
from clearhead.spec import band as bands

RING, HEADS = "ring", "heads"
ROWS, KEYS = 256, 4096  # a rule is evaluated for blocks of this many queries and keys


class Block(NamedTuple):
    """Some of a rank's queries over some keys of one owner.

    Attributes:
        rows, keys: their slices of the rank's query, and of the owner's key and value.
        first_row: the position of the first query; the others follow it.
        positions: the keys' positions in the whole sequence.
        attention: the attention of this block, with the positions of its first query and key.
    """

    rows: slice
    keys: slice
    first_row: int
    positions: slice
    attention: Attention


@dataclass(frozen=True, slots=True)
class Call:
    """The description of a call that forward, backward and the statistics of its matrix share.

    Attributes:
        ranks: the processes.
        query_pieces, key_pieces: the positions that each rank holds.
        batch, kv_heads, width, value_width: B, H_kv, D and E.
        rule: a mask in addition to the attention's own fields, evaluated in blocks; None = everywhere.
        added: a bias in addition to the attention's own fields, evaluated in blocks; None = nothing.
        kernel: the name of the kernel to use; None = chosen for each block.
    """

    ranks: Ranks
    query_pieces: list[list[Piece]]
    key_pieces: list[list[Piece]]
    batch: int
    kv_heads: int
    width: int
    value_width: int
    rule: Mask | None = None
    added: Bias | None = None
    kernel: str | None = None

    def held(self, pieces: list[list[Piece]], rank: int) -> int:
        """Return how many positions a rank holds."""
        return sum(piece.local.stop - piece.local.start for piece in pieces[rank])

    def total(self, pieces: list[list[Piece]]) -> int:
        """Return how many positions all ranks hold."""
        return sum(self.held(pieces, rank) for rank in range(self.ranks.size))

    def shapes(self, width: int) -> list[tuple[int, int, int, int]]:
        """Return the shape of each rank's key, value or other tensor with one row per key."""
        return [(self.batch, self.kv_heads, self.held(self.key_pieces, rank), width) for rank in range(self.ranks.size)]

    def blocks(self, attention: Attention, owner: int) -> Iterator[Block]:
        """Yield the blocks of this rank's queries over an owner's keys, without fully masked blocks.

        Args:
            attention: the attention of this rank's queries over all keys: its tensors have this rank's rows.
        """
        for query in self.query_pieces[self.ranks.rank]:
            for key in self.key_pieces[owner]:
                yield from self._of_pieces(attention, query, key)

    def _of_pieces(self, attention: Attention, query: Piece, key: Piece) -> Iterator[Block]:
        whole = self.rule is None and self.added is None
        rows = query.positions
        step = max(rows.stop - rows.start, 1) if whole else ROWS
        for start in range(rows.start, rows.stop, step):
            part = slice(start, min(start + step, rows.stop))
            keys = bands.span(attention.reach, part, key.positions)
            wide = max(keys.stop - keys.start, 1) if whole else KEYS
            for first in range(keys.start, keys.stop, wide):
                block = self._block(attention, query, key, part, slice(first, min(first + wide, keys.stop)))
                if block is not None:
                    yield block

    def _block(self, attention: Attention, query: Piece, key: Piece, rows: slice, keys: slice) -> Block | None:
        local_rows = _shift(rows, query.local.start - query.first)
        local_keys = _shift(keys, key.local.start - key.first)
        own = attention.pairs(local_rows, keys).change(
            first_query=attention.first_query + rows.start, first_key=attention.first_key + keys.start
        )
        ranges: Any = range(rows.start, rows.stop), range(keys.start, keys.stop)
        state = BlockState.FULL if self.rule is None else self.rule.state(*ranges)
        if state is BlockState.EMPTY:
            return None
        if state is BlockState.MIXED and self.rule is not None:
            own = _with(own, "allow", self.rule.block(*ranges, device=self._device(attention)))
        if self.added is not None:
            own = _with(own, "bias", self.added.bias_block(*ranges, device=self._device(attention)))
        return Block(local_rows, local_keys, rows.start, keys, own)

    def _device(self, attention: Attention) -> Any:
        tensors = list(attention.tensors().values())
        return tensors[0].device if tensors else None


def _with(attention: Attention, name: str, tensor: Tensor) -> Attention:
    own = getattr(attention, name)
    joint = tensor if own is None else own & tensor if name == "allow" else own + tensor
    return attention.change(**{name: joint})


def _shift(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)
