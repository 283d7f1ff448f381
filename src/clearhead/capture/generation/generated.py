"""Join a generation into one matrix: a row for each token, over the keys of its text.

Steps that add a key to one cache are joined at once. If beams change places, each step's rows are reordered to the
beams that they became, so that a row of the batch is one text from its first token to its last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clearhead.capture.generation.joined_masks import PlacedCall
from clearhead.capture.generation.joining import joined, last_run
from clearhead.capture.positions import Axis, Positions
from clearhead.errors import OptionError
from clearhead.matrix import AttentionMatrix
from clearhead.spec import FIELDS, Attention

if TYPE_CHECKING:
    from clearhead.capture.steps import Step


# The fields of an attention that all steps of one cache share; the others follow from the step's positions and mask.
_SHARED = FIELDS.keys() - {"band_low", "band_high", "allow", "first_query", "first_key"}


@dataclass(frozen=True, slots=True)
class PlacedStep:
    """One step of a generation, its positions, and the row of its batch that each row of the result comes from."""

    step: Step
    positions: Positions
    rows: Tensor | None


def whole(steps: Sequence[Step], positions: Sequence[Positions], beams: Tensor | None = None) -> PlacedCall:
    """Return the steps of one layer that belong to the last text, as one matrix.

    Args:
        steps: in the order in which they ran.
        positions: the positions of each.
        beams: (N, new), the row of the batch that produced each new token of each text; None: the last step's rows.

    Raises:
        CaptureError: they do not fit in one matrix; the message says why.
    """
    rows = _beam_rows(steps, positions, beams) if beams is not None else _ancestors(steps)
    placed = [PlacedStep(*entry) for entry in zip(steps, positions, rows, strict=True)]
    calls: list[PlacedCall] = []
    start = 0
    while start < len(placed):
        stop = start + 1
        while stop < len(placed) and _grows(placed[stop - 1], placed[stop]):
            stop += 1
        group = _group(placed[start:stop]) if stop - start > 1 else None
        calls += [group] if group is not None else [_call(step) for step in placed[start:stop]]
        start = stop
    return joined(last_run(calls), versions=True)


def _ancestors(steps: Sequence[Step]) -> list[Tensor | None]:
    """Return, for each step, the row of its batch that became each row of the last step; None = the same row."""
    rows: Tensor | None = None
    answers: list[Tensor | None] = []
    for step in reversed(steps):
        answers.append(rows)
        change = step.keys.change
        if change is not None:
            rows = change.rows if rows is None else change.rows[rows]
            rows = None if torch.equal(rows, torch.arange(len(rows), device=rows.device)) else rows
    return answers[::-1]


def _beam_rows(steps: Sequence[Step], positions: Sequence[Positions], beams: Tensor) -> list[Tensor | None]:
    """Return the same from the beam indices of `generate`: the prompt's rows are those of the first new token.

    Raises:
        OptionError: they are not of this generation.
    """
    batch = steps[-1].matrix().shape[0]
    if beams.dim() != 2 or beams.is_floating_point() or int(beams.max()) >= batch:
        raise OptionError(
            f"beams has shape {tuple(beams.shape)}, expected (texts, new tokens) with row numbers below {batch}. Give "
            "the beam_indices that generate(…, return_dict_in_generate=True) returns."
        )
    known = torch.cummax(torch.where(beams < 0, -1, torch.arange(beams.shape[1])), 1).indices  # -1 after a text's end
    beams = beams.gather(1, known)
    first = len(steps) - beams.shape[1]
    return [beams[:, max(0, min(number - first, beams.shape[1] - 1))] for number in range(len(steps))]


def _grows(before: PlacedStep, step: PlacedStep) -> bool:
    """Whether a step of one query continues the step before, over the keys of the same cache."""
    earlier, later = before.step, step.step
    if earlier.query is None or later.query is None or earlier.queries != 1 or later.queries != 1:
        return False
    own, other = earlier.attention, later.attention
    if own is None or other is None or not _alike(own, other):
        return False
    first, last = before.positions, step.positions
    if not last.within or first.queries.start is None or first.keys.start is None:
        return False
    if last.queries.start != first.queries.start + 1 or last.keys.start != first.keys.start:
        return False
    return later.keys is earlier.keys or _adds_keys(earlier, later, last.queries.start - first.keys.start)


def _adds_keys(earlier: Step, later: Step, place: int) -> bool:
    """Whether a step's keys are those of the step before, except for new ones from a position on; rows may differ."""
    change = later.keys.change
    next_place = earlier.keys.place + 1 if earlier.keys.chain is not None else 1
    return (
        change is not None
        and change.shift == 0
        and later.keys.place == next_place
        and bool((change.places >= place).all())
    )


def _alike(own: Attention, other: Attention) -> bool:
    if own is other:
        return True
    return all(getattr(own, name) is getattr(other, name) or _same(own, other, name) for name in _SHARED)


def _same(own: Attention, other: Attention, name: str) -> bool:
    left, right = getattr(own, name), getattr(other, name)
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        return isinstance(left, Tensor) and isinstance(right, Tensor) and torch.equal(left, right)
    return bool(left == right)


def _group(steps: list[PlacedStep]) -> PlacedCall | None:
    """Return steps over one cache as one call, if a band and a mask of real keys describe their masks; else None."""
    last = steps[-1]
    first_key, start = last.positions.keys.start, steps[0].positions.queries.start
    attention, own = last.step.attention, last.step.query
    if first_key is None or start is None or attention is None or own is None:
        return None
    if attention.bias is not None or attention.rule is not None or attention.key_bias is not None:
        return None
    size = last.step.size
    real = _rows_of(attention.allow, last.rows)
    for number, entry in enumerate(steps):
        reach = start + number - first_key
        allow = entry.step.attention.allow if entry.step.attention is not None else None
        if not _is_banded(_rows_of(allow, entry.rows), real, reach, entry.step.size):
            return None
    query = torch.cat([_chosen(entry.step.query, entry.rows) for entry in steps], 2)
    key = _chosen(last.step.keys.tensor[:, :, :size], last.rows)
    banded = attention.change(allow=real, band_low=None, band_high=start - first_key, first_query=0, first_key=0)
    where = Positions(
        Axis(last.positions.queries.sequence, range(start, start + len(steps))),
        last.positions.keys,
        last.positions.text,
        last.positions.nth,
    )
    return PlacedCall(AttentionMatrix.of(query, key, banded), where)


def _is_banded(allow: Tensor | None, real: Tensor | None, reach: int, size: int) -> bool:
    """Whether a step may attend the real keys up to its own, and no others."""
    if allow is None:
        return size == reach + 1 and (real is None or bool(real[..., :size].all()))
    seen = torch.arange(size, device=allow.device) <= reach
    own = allow[..., :size] if allow.shape[-1] > 1 else allow.expand(*allow.shape[:3], size)
    known = seen if real is None else real[..., :size] & seen
    return bool((own == known).all())


def _call(entry: PlacedStep) -> PlacedCall:
    """Return one step with its batch in the order of the result."""
    matrix = entry.step.matrix()
    if entry.rows is None:
        return PlacedCall(matrix, entry.positions)
    logits = matrix._logits
    own = {
        name: _rows_of(tensor, entry.rows)
        for name, tensor in logits.attention.tensors().items()
        if name in ("allow", "bias", "key_bias")
    }
    value = None if matrix._value is None else matrix._value[entry.rows]
    chosen = AttentionMatrix.of(
        logits.query[entry.rows], logits.key[entry.rows], logits.attention.change(**own), value=value
    )
    return PlacedCall(chosen, entry.positions)


def _rows_of(table: Tensor | None, rows: Tensor | None) -> Tensor | None:
    return table if table is None or rows is None or table.shape[0] == 1 else table[rows]


def _chosen(tensor: Tensor | None, rows: Tensor | None) -> Tensor:
    assert tensor is not None  # noqa: S101 (`_grows` has looked)
    return tensor if rows is None else tensor[rows]
