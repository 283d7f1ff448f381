"""Tables of scores for every head, by which the grid is ordered: capture's scores, breadth and reach."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clearhead.capture.positions import Positions
from clearhead.matrix import AttentionMatrix
from clearhead.views.maps import Array, numbers

if TYPE_CHECKING:
    from clearhead.capture import Reading


def mark(text: str) -> str:
    """Mark a text for the translation catalogs; the page translates it."""
    return text


ABOUT = {
    mark("breadth"): mark("how evenly queries look: 0 at one key, 1 at all keys equally"),
    mark("reach"): mark("mean distance from query to key, in tokens"),
    mark("previous token"): mark("mean weight on the token before"),
    mark("first token"): mark("mean weight on the first token"),
    mark("duplicate token"): mark("mean weight on earlier places of the same token"),
    mark("induction"): mark("mean weight on what followed the same token before"),
    mark("separator"): mark("mean weight on the tokenizer's special tokens after the first"),
    mark("positional"): mark("share of queries that look at the head's commonest offset"),
}


@dataclass(frozen=True, slots=True)
class Table:
    """One score of every head.

    Attributes:
        name, about: its name and its meaning.
        values: `values[layer][head]`; None if the score is not defined for this text.
    """

    name: str
    about: str
    values: list[list[float | None]]

    def ranked(self) -> list[tuple[float, int, int]]:
        """Return (value, layer, head) of the heads that have a value, largest first."""
        entries = [
            (value, layer, head)
            for layer, row in enumerate(self.values)
            for head, value in enumerate(row)
            if value is not None
        ]
        return sorted(entries, key=lambda entry: (-entry[0], entry[1:]))


def tables(
    reading: "Reading", *, most: int | None = None, breadths: Sequence[Array | None] | None = None
) -> list[Table]:
    """Return the scores of a reading, without those that no head has.

    `clearhead.capture.scores` defines them. A rollout has only breadth and reach.

    Args:
        most: past this many weights in all, only breadth is computed; the others take about ten passes over them.
        breadths: the breadth of each layer's heads, if it is already known.
    """
    matrices = list(reading.record.values())
    columns: dict[str, list[Any]] = {"breadth": list(breadths or map(breadth, matrices))}
    if most is None or sum(math.prod(matrix.shape) for matrix in matrices) <= most:
        columns["reach"] = [
            reach(matrix, reading.record.positions(name)[-1]) for name, matrix in reading.record.items()
        ]
        if matrices and all(isinstance(matrix, AttentionMatrix) for matrix in matrices):
            columns.update(_captured(reading))
    made = [
        Table(name, ABOUT[name], [_numbers_or_none(row) for row in columns[name]]) for name in ABOUT if name in columns
    ]
    return [table for table in made if table.ranked()]


def breadth(matrix: Any) -> Array:
    """Return (H,): the entropy of the rows as a share of its maximum, the log of the number of visible keys."""
    _, heads, length, keys = matrix.shape
    seen = numbers(matrix.visible())[0] if hasattr(matrix, "visible") else np.full((heads, length), keys)
    most = np.log(np.maximum(seen, 1)).sum(-1)
    entropy = numbers(matrix.entropy())[0].sum(-1)
    return np.divide(entropy, most, out=np.full(heads, math.nan), where=most > 0)


def reach(matrix: Any, where: Positions) -> Array:
    """Return (H,): mean distance of query and key in tokens (Vig & Belinkov 2019, section 3); NaN across two texts."""
    if where.offset is None:
        return np.full(matrix.shape[1], math.nan)
    distance = matrix.mean_distance(offset=where.offset) if where.offset else matrix.mean_distance()
    return numbers(distance)[0].mean(-1)


def _captured(reading: "Reading") -> dict[str, list[Any]]:
    """Return capture's scores as name -> one row per layer."""
    from clearhead.capture import scores

    by_layer: dict[str, list[Any]] = {name: [] for name in reading.record}
    for row in scores(reading):
        by_layer[row.layer].append(row)
    fields = [name for name in ABOUT if name not in ("breadth", "reach")]
    return {
        field: [
            [getattr(row, field.replace(" ", "_")) for row in rows] or [math.nan] * matrix.shape[1]
            for rows, matrix in zip(by_layer.values(), reading.record.values(), strict=True)
        ]
        for field in fields
    }


def _numbers_or_none(row: Any) -> list[float | None]:
    return [None if math.isnan(value) else round(float(value), 6) for value in row]
