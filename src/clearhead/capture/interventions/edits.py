"""Edits: what replaces a head's output z in one call of attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from clearhead.capture.positions import Positions, assumed
from clearhead.capture.record import Record
from clearhead.errors import OptionError
from clearhead.matrix import AttentionMatrix


@dataclass(frozen=True, slots=True)
class HeadCall:
    """The computation of one head in one call, for some rows of the batch.

    Attributes:
        name: the name of the attention module.
        head: the head's index.
        heads: the number of heads in the layer.
        z: (B, L, D_v), its output.
        keys: S.
        weigh: sums the head's values with other weights: (B, L, S) -> (B, L, D_v).
        positions: the positions of the queries and keys.
        real: (B, L), False for padding; None = all are tokens.
    """

    name: str
    head: int
    heads: int
    z: Tensor
    keys: int
    weigh: Callable[[Tensor], Tensor]
    positions: Positions
    real: Tensor | None


class Edit(Protocol):
    """Computes the replacement of a head's output."""

    def __call__(self, call: HeadCall) -> Tensor:
        """(B, L, D_v)."""
        ...


def zero(call: HeadCall) -> Tensor:
    """Return zeros: the head adds nothing to the residual stream."""
    return torch.zeros_like(call.z)


@dataclass(slots=True)
class Mean:
    """The mean of the head's outputs over the batch and all positions so far, padding left out."""

    _sums: dict[int, tuple[Tensor, float]] = field(default_factory=dict)

    def __call__(self, call: HeadCall) -> Tensor:
        z, place = call.z, call.positions
        wide = z.to(torch.promote_types(z.dtype, torch.float32))
        if call.real is None:
            total, count = wide.sum((0, 1)), float(z.shape[0] * z.shape[1])
        else:
            real = call.real.to(wide.dtype)
            total, count = (wide * real[..., None]).sum((0, 1)), float(real.sum())
        if _start(place) > 0 and place.nth in self._sums:  # a later step of a generation
            before, number = self._sums[place.nth]
            total, count = total + before, count + number
        self._sums[place.nth] = total, count
        return (total / max(count, 1.0)).to(z.dtype).expand_as(z)


@dataclass(frozen=True, slots=True)
class Changed:
    """The result of a function of the head's output."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, call: HeadCall) -> Tensor:
        changed = self.function(call.z)
        if not isinstance(changed, Tensor) or not _fits(changed.shape, call.z.shape):
            got = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
            raise OptionError(
                f"the function for head {call.head} of {call.name!r} returned {got}, expected a tensor that broadcasts "
                f"to its argument's shape {tuple(call.z.shape)}, axes B,L,D_v."
            )
        return changed.to(call.z).expand_as(call.z)


@dataclass(frozen=True, slots=True)
class Weights:
    """The head's own values, summed with other weights: (L, S) or (B, L, S), by position from 0."""

    weights: Tensor

    def __call__(self, call: HeadCall) -> Tensor:
        weights = self.weights if self.weights.dim() == 3 else self.weights[None]
        if weights.shape[0] not in (1, call.z.shape[0]):
            raise OptionError(
                f"the weights of head {call.head} of {call.name!r} have a batch of {weights.shape[0]}, and the model "
                f"runs one of {call.z.shape[0]}. Give (L, S), or one matrix for each entry."
            )
        whole = assumed(*weights.shape[1:])
        rows, chosen = _matched(call, whole.queries.positions, f"weights of shape {tuple(self.weights.shape)}")
        if not rows:
            return call.z
        keys, columns = _pairs(call.positions.keys.positions, range(weights.shape[2]))
        if len(columns) < weights.shape[2] and bool((_other_columns(weights[:, chosen], columns) != 0).any()):
            raise OptionError(
                f"the weights of head {call.head} of {call.name!r} have shape {tuple(self.weights.shape)}, and it has "
                f"{call.keys} keys, so some weights have no key. Give (L, S) with S={call.keys}; to replace the output "
                "z, give a function: lambda z: other."
            )
        full = call.z.new_zeros(call.z.shape[0], call.z.shape[1], call.keys)
        part = weights[:, chosen][:, :, columns].to(call.z).expand(len(full), -1, -1)
        full[:, torch.tensor(rows)[:, None], torch.tensor(keys)] = part
        return _in_rows(call.z, rows, call.weigh(full)[:, rows])


@dataclass(slots=True)
class Recorded:
    """The head's output in a record; if the record has no values, its own values summed with the recorded weights."""

    record: Record
    layer: str | int
    head: int
    _known: tuple[AttentionMatrix, Positions, Tensor | None] | None = None

    def __call__(self, call: HeadCall) -> Tensor:
        matrix, positions, z = self._source(call)
        if z is None:
            return self._weights(matrix, positions)(call)
        rows, chosen = _matched(call, positions.queries.positions, f"a record of {matrix.shape[2]} positions")
        if z.shape[0] not in (1, call.z.shape[0]) or z.shape[2] != call.z.shape[2]:
            raise OptionError(
                f"the record's output of head {call.head} of {call.name!r} has shape {tuple(z.shape)}, and the model's "
                f"has {tuple(call.z.shape)}, axes B,L,D_v. Record a batch of one, or of as many entries."
            )
        return _in_rows(call.z, rows, z[:, chosen].to(call.z).expand(call.z.shape[0], -1, -1)) if rows else call.z

    def _weights(self, matrix: AttentionMatrix, positions: Positions) -> Weights:
        dense = matrix.to_dense()[:, 0]
        first = positions.queries.start or 0
        if first or positions.keys.start:  # weights are placed from position 0 on
            dense = torch.nn.functional.pad(dense, (positions.keys.start or 0, 0, first, 0))
        return Weights(dense)

    def _source(self, call: HeadCall) -> tuple[AttentionMatrix, Positions, Tensor | None]:
        if self._known is None:
            whole = self.record.joined()
            name = self.layer if isinstance(self.layer, str) and self.layer in whole else call.name
            if name not in whole and isinstance(self.layer, int):
                name = list(whole)[self.layer]
            matrix = whole[name]
            if matrix.shape[1] != call.heads:
                raise OptionError(
                    f"the record has {matrix.shape[1]} heads of {name!r}, and the model {call.heads}. Record every "
                    "head: observe(model, values=True) without heads=."
                )
            matrix = matrix.heads(self.head)
            z = None if matrix.v is None else matrix.z[:, 0].detach()
            self._known = matrix, whole.positions(name)[0], z
        return self._known


def _matched(call: HeadCall, known: Sequence[int], source: str) -> tuple[list[int], list[int]]:
    """Return the rows of a call whose positions a source covers, and the source's rows for them.

    Positions after the source's last one keep the model's own output, as the new tokens of a generation do.

    Raises:
        OptionError: the text itself is longer than the source.
    """
    rows, chosen = _pairs(call.positions.queries.positions, known)
    if len(rows) < call.z.shape[1] and _start(call.positions) == 0:
        raise OptionError(
            f"head {call.head} of {call.name!r} runs {call.z.shape[1]} queries, and is given {source}. Give one for "
            "each position of the text (only the new tokens of a generation may be left out)."
        )
    return rows, chosen


def _pairs(wanted: Sequence[int], known: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the indices, in each sequence, of positions that are in both.

    >>> _pairs([3, 4, 5], range(5))
    ([0, 1], [3, 4])
    """
    index = {position: place for place, position in enumerate(known)}
    both = [(row, index[position]) for row, position in enumerate(wanted) if position in index]
    return [row for row, _ in both], [place for _, place in both]


def _other_columns(weights: Tensor, columns: list[int]) -> Tensor:
    """Return the columns of weights that are not in a list."""
    rest = torch.ones(weights.shape[-1], dtype=torch.bool)
    rest[columns] = False
    return weights[..., rest]


def _in_rows(z: Tensor, rows: list[int], part: Tensor) -> Tensor:
    """Return z (B, L, D_v) with some rows replaced."""
    if len(rows) == z.shape[1]:
        return part
    changed = z.clone()
    changed[:, rows] = part
    return changed


def _start(positions: Positions) -> int:
    return positions.queries.positions[0] if len(positions.queries.positions) else 0


def _fits(shape: Sequence[int], target: Sequence[int]) -> bool:
    try:
        return torch.broadcast_shapes(tuple(shape), tuple(target)) == tuple(target)
    except RuntimeError:
        return False
