"""Rollout as a reading: the layers of a model combined into one head, which every view can draw."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clearhead.capture.positions import Positions, assumed
from clearhead.capture.record_summary import axes_text
from clearhead.capture.steps import Missed
from clearhead.errors import OptionError
from clearhead.matrix import rollout
from clearhead.matrix.questions.pooling import edges

if TYPE_CHECKING:
    from clearhead.capture import Reading

ROWS = 128  # rows computed at a time: memory O(ROWS · L)


class RolledOut:
    """A rollout with the methods of an attention matrix that the views use, (1, 1, L, L), not stored.

    Row i says where position i of the last layer draws from among the input tokens; a row adds up to 1.

    Source: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3.
    """

    dtype = torch.float32

    def __init__(self, matrices: list[Any]) -> None:
        self._rollout = rollout(matrices)
        length = self._rollout.shape[-1]
        self.shape = (1, 1, length, length)

    def to_dense(self) -> Tensor:
        """Return (1, 1, L, L), stored, for texts short enough to draw in full."""
        return self._rows(range(self.shape[2]))[None, None]

    def heads(self, _heads: Any) -> "RolledOut":
        """Return this object, which has one head."""
        return self

    def pooled(self, rows: int, cols: int, *, region: tuple[slice, slice] | None = None) -> Tensor:
        """Return (1, 1, rows, cols): means over tiles of all or of a region, by a product with pooling columns."""
        down, across = region or (slice(0, self.shape[2]), slice(0, self.shape[3]))
        columns = torch.zeros(self.shape[3], cols)
        for cell, (start, end) in enumerate(edges(across.stop - across.start, cols)):
            columns[across.start + start : across.start + end, cell] = 1 / (end - start)
        return torch.nn.functional.adaptive_avg_pool2d((self._rollout @ columns)[:, None, down], (rows, cols))

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the k largest weights of each row and their places, both (1, 1, L, k)."""
        parts = [self._rows(part).topk(k, dim=-1) for part in self._parts()]
        values, places = (torch.cat([part[which] for part in parts])[None, None] for which in (0, 1))
        return values, places

    def entropy(self) -> Tensor:
        """(1, 1, L), nats."""
        rows = [torch.special.entr(self._rows(part)).sum(-1) for part in self._parts()]
        return torch.cat(rows)[None, None]

    def mean_distance(self) -> Tensor:
        """(1, 1, L), tokens."""
        places = torch.arange(self.shape[3], dtype=torch.float32)
        rows = [(self._rows(part) * (places[list(part), None] - places).abs()).sum(-1) for part in self._parts()]
        return torch.cat(rows)[None, None]

    def kl(self, other: "RolledOut") -> Tensor:
        """Return (1, 1, L), nats per row: Σⱼ aⱼ·log(aⱼ / bⱼ); infinite where b is 0 and a is not."""
        nats = []
        for part in self._parts():
            ours, theirs = self._rows(part), other._rows(part)
            nats.append((ours * (ours / theirs).log()).masked_fill(ours == 0, 0.0).sum(-1))
        return torch.cat(nats)[None, None]

    def __getitem__(self, key: Any) -> Tensor:
        """Index like a tensor (1, 1, L, L). For [0, 0, some rows], only those rows are computed."""
        if isinstance(key, tuple) and len(key) == 3 and key[:2] == (0, 0) and isinstance(key[2], slice):
            return self._rows(range(self.shape[2])[key[2]])
        return self.to_dense()[key]

    def _parts(self) -> list[range]:
        return [range(start, min(start + ROWS, self.shape[2])) for start in range(0, self.shape[2], ROWS)]

    def _rows(self, positions: range) -> Tensor:
        return self._rollout.rows(positions)[0]


class OneMatrix(Mapping[str, Any]):
    """A record of one matrix, with the `missed` of the original record."""

    def __init__(self, name: str, matrix: RolledOut, positions: Positions, missed: Any) -> None:
        self._name, self._matrix, self._positions, self.missed = name, matrix, positions, missed

    def positions(self, _name: str) -> tuple[Positions]:
        """Return the positions of its rows and columns."""
        return (self._positions,)

    def release_model(self) -> None:
        """Do nothing, because this record holds no model."""

    def __repr__(self) -> str:
        return f"OneMatrix({self._name!r}: {axes_text(self._matrix.shape)})"

    def __getitem__(self, name: str) -> RolledOut:
        if name != self._name:
            raise KeyError(name)
        return self._matrix

    def __iter__(self) -> Any:
        return iter((self._name,))

    def __len__(self) -> int:
        return 1


def rolled(reading: "Reading") -> Any:
    """Return the same reading with all its layers rolled out into one head, for any view.

    Raises:
        OptionError: nothing was captured, or no layer attends from the tokens to themselves.
        ShapeError: the layers are not self-attention over one sequence.

    For an encoder-decoder, the encoder's layers are rolled out, and the decoder's are listed in the record's `missed`.
    """
    layers, missed = {}, list(reading.record.missed)
    for name, matrix in reading.record.items():
        where = reading.record.positions(name)[-1]
        if where.within and where.queries.sequence == "input":
            layers[name] = matrix
        else:
            missed.append(Missed(name, "not part of the rollout: its queries and keys are not both the text's tokens"))
    if reading.record and not layers:
        raise OptionError("no layer attends from the text's tokens to themselves, so there is nothing to roll out.")
    rolled_out = RolledOut(list(layers.values()))
    size = rolled_out.shape[2]
    record: Any = OneMatrix("rollout of all layers", rolled_out, assumed(size, size), missed)
    return replace(reading, record=record, model_name=f"{reading.model_name}, rollout")
