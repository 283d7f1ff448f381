"""Join the calls of one generation into one matrix: every query that ran, over all the keys that they read."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead.capture.generation.joined_masks import (
    Part,
    PlacedCall,
    band,
    band_and_padding,
    bias_of,
    mask_of,
    table,
)
from clearhead.capture.positions import Axis, Positions
from clearhead.errors import CaptureError
from clearhead.matrix import AttentionMatrix
from clearhead.spec import FIELDS, Attention, Axes
from clearhead.spec.band import shift

MOST_MASK = 2**28  # entries of a mask that is stored as a table
MOST_VERSIONS = 16  # versions of keys that change after a query has seen them


def last_run(calls: list[PlacedCall]) -> list[PlacedCall]:
    """Return the last calls that continue each other: one generation, or one pass.

    A call that begins at position 0 begins a run. A call that begins before the end of the previous one replaces what
    was there: a cache is cropped after drafted tokens were rejected.
    """
    run: list[PlacedCall] = []
    for call in calls:
        start = call.positions.queries.start
        end = run[-1].positions.queries.positions[-1] + 1 if run else 0
        follows = run and start is not None and 0 < start <= end and _continues(run[-1], call)
        run = [*run, call] if follows else [call]
    return run


def joined(calls: list[PlacedCall], *, versions: bool = False) -> PlacedCall:
    """Return one matrix of the queries of all calls over the keys of all calls.

    Args:
        calls: from `last_run`.
        versions: allow keys of one position to differ from call to call, as in a quantised cache. Queries and keys then
            get a block of head_dim for each version, and a query is 0 in all blocks but its own.

    Raises:
        CaptureError: they do not fit in one matrix: keys of one position differ from call to call (beams that change
            places), or a number that all calls must share differs; the message says which.

    Memory: a copy of queries and keys; a mask of L·S only if the calls' masks do not form one band.
    """
    if len(calls) == 1:
        return calls[0]
    last = calls[-1].positions
    first_key = min(call.positions.keys.positions[0] for call in calls)
    parts = _parts(calls, first_key)
    rows = sum(part.rows for part in parts)
    query = torch.cat([part.call.matrix._logits.query[:, :, : part.rows] for part in parts], 2)
    if versions:
        query, keys = _with_versions(parts, query)
    else:
        keys = _keys(parts, "key")
    if last.within:  # slots of a cache that no query has reached
        keys = keys[:, :, : last.queries.positions[-1] + 1 - first_key]
    size = keys.shape[2]
    attention = _shared(parts)
    reach = band(parts, size)
    above, real = band_and_padding(parts, size, rows) if reach is None else (0, None)
    if real is not None:
        attention = replace(attention, allow=real, band_low=None, band_high=above + attention.offset)
    elif reach is None:
        if rows * size > MOST_MASK:
            raise CaptureError(f"their masks together are a table of {rows} × {size}")
        attention = replace(attention, allow=table([mask_of(part, size) for part in parts]))
    else:
        low, high = shift(reach, -attention.offset)
        attention = replace(attention, band_low=low, band_high=high)
    if any(part.attention.bias is not None for part in parts):
        attention = replace(attention, bias=table([bias_of(part, size) for part in parts]))
    value = None
    if all(part.call.matrix._value is not None for part in parts):
        value = _keys(parts, "value")[:, :, :size]
    start = calls[0].positions.queries.positions[0]
    where = Positions(
        Axis(last.queries.sequence, range(start, start + rows)),
        Axis(last.keys.sequence, range(first_key, first_key + size)),
    )
    return PlacedCall(AttentionMatrix.of(query, keys, attention, value=value), where)


def _continues(earlier: PlacedCall, later: PlacedCall) -> bool:
    """Whether two calls can be one matrix: the same batch and heads, from and to the same sequences."""
    ours, theirs = earlier.positions, later.positions
    return (
        earlier.matrix.shape[:2] == later.matrix.shape[:2]
        and ours.queries.sequence == theirs.queries.sequence
        and ours.keys.sequence == theirs.keys.sequence
        and isinstance(ours.queries.positions, range)
        and ours.keys.start is not None
        and theirs.keys.start is not None
        and (ours.within or earlier.matrix.shape[3] == later.matrix.shape[3])
    )


def _parts(calls: list[PlacedCall], first_key: int) -> list[Part]:
    """Return the part of each call: its queries up to the position where a later call begins again."""
    parts, row = [], 0
    starts = [call.positions.queries.positions[0] for call in calls]
    for index, call in enumerate(calls):
        until = min((start for start in starts[index + 1 :]), default=None)
        rows = call.matrix.shape[2] if until is None else min(call.matrix.shape[2], max(0, until - starts[index]))
        if rows:
            parts.append(Part(call, rows, row, call.positions.keys.positions[0] - first_key))
            row += rows
    return parts


def _keys(parts: list[Part], which: str) -> Tensor:
    """Return the keys (or values) of all calls by position, each from the last call that had it.

    Raises:
        CaptureError: an earlier call read other keys at a position that its queries may attend to.
    """

    def of(part: Part) -> Tensor:
        matrix = part.call.matrix
        return matrix._logits.key if which == "key" or matrix._value is None else matrix._value

    whole, first = of(parts[-1]), parts[-1].key
    checked: set[int] = {whole.data_ptr()}
    for part in reversed(parts[:-1]):
        earlier = of(part)
        if part.key < first:
            whole, first = torch.cat([earlier[:, :, : first - part.key], whole], 2), part.key
        if earlier.data_ptr() in checked:  # one buffer that grew
            continue
        checked.add(earlier.data_ptr())
        size = min(earlier.shape[2], whole.shape[2])
        later = whole[:, :, part.key - first : part.key - first + size]
        rows = slice(0, part.rows)
        seen = part.call.matrix.rows(rows.start, rows.stop).allowed(1, earlier.shape[2])[:, :, 0] > 0
        differs = (earlier[:, :, : later.shape[2]] != later).any(-1).any(1) & seen.any(1)[:, : later.shape[2]]
        if bool(differs.any()):
            raise CaptureError("keys of one position differ from call to call, as where beams change places")
    return whole


def _with_versions(parts: list[Part], query: Tensor) -> tuple[Tensor, Tensor]:
    """Return queries and keys of all calls, with a block of head_dim for each version of the keys.

    Raises:
        CaptureError: there are more than MOST_VERSIONS.
    """
    groups: list[list[Part]] = []
    for part in reversed(parts):  # a version serves the calls that lead up to it
        if groups:
            try:
                _keys([part, *groups[0]], "key")
            except CaptureError:
                groups.insert(0, [])
            groups[0].insert(0, part)
        else:
            groups.append([part])
        if len(groups) > MOST_VERSIONS:
            raise CaptureError(f"keys of one position take more than {MOST_VERSIONS} values from call to call")
    if len(groups) == 1:
        return query, _keys(parts, "key")
    versions = [_keys(group, "key") for group in groups]
    size = max(version.shape[2] for version in versions)
    first = min(part.key for part in parts)
    blocks, row = [], 0
    padded = []
    for group, version in zip(groups, versions, strict=True):
        before = min(part.key for part in group) - first
        padded.append(F.pad(version, (0, 0, before, size - version.shape[2] - before)))
        count = sum(part.rows for part in group)
        block = torch.zeros_like(query)
        block[:, :, row : row + count] = query[:, :, row : row + count]
        blocks.append(block)
        row += count
    return torch.cat(blocks, -1), torch.cat(padded, -1)


def _shared(parts: list[Part]) -> Attention:
    """Return the attention fields that all calls share.

    Raises:
        CaptureError: they differ.
    """
    first = parts[0].attention
    per_head = [name for name, row in FIELDS.items() if row.axes is Axes.HEADS]
    for part in parts[1:]:
        other = part.attention
        numbers_differ = (other.scale, other.softcap) != (first.scale, first.softcap)
        if numbers_differ or not all(_equal(getattr(other, name), getattr(first, name)) for name in per_head):
            raise CaptureError("scale, softcap, sinks or slopes differ from call to call")
    offsets = {part.attention.offset + part.key - part.row for part in parts}
    if first.alibi is not None and len(offsets) > 1:
        raise CaptureError("distances are counted in a different way from call to call")
    own = {name: getattr(first, name) for name in per_head}
    first_query = 0 if first.alibi is None else offsets.pop()
    return Attention(first.scale, softcap=first.softcap, first_query=first_query, **own)


def _equal(first: Tensor | None, second: Tensor | None) -> bool:
    return first is second or (first is not None and second is not None and torch.equal(first, second))
