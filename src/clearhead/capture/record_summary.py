"""The repr of a record: a few lines for an interactive prompt."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from clearhead.printing import count
from clearhead.sizes import size_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clearhead.capture.record import Record

MOST = 12  # lines of modules


def summary(record: Record) -> str:
    """Return a summary: how many modules, calls and bytes a record holds, their shapes, and what was missed."""
    calls = {name: len(record._steps[name]) for name in record}
    total = sum(calls.values())
    counts = f"{count(len(calls), 'module')}, {count(total, 'call')}"
    head = f"Record({counts}, {size_text(_bytes(record))}, {len(record.missed)} missed)"
    lines = []
    rows = [(name, record[name].shape, calls[name]) for name in record]
    for (shape, times), same in groupby(rows, key=lambda row: row[1:]):
        names = [name for name, *_ in same]
        which = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)})"
        lines.append(f"  {which}: {axes_text(shape)}" + (f", last of {times} calls" if times > 1 else ""))
    shown = lines[:MOST] + [f"  … and {len(lines) - MOST} more"] * (len(lines) > MOST)
    missed = [f"  missed {item.name}: {item.reason}" for item in record.missed[:MOST]]
    more = [f"  … and {len(record.missed) - MOST} more missed"] * (len(record.missed) > MOST)
    return "\n".join([head, *shown, *missed, *more])


def axes_text(shape: Sequence[int]) -> str:
    """Return the shape of a matrix with the letters of its axes.

    >>> axes_text((1, 4, 29, 31))
    'B=1 H=4 L=29 S=31'
    """
    return " ".join(f"{axis}={size}" for axis, size in zip("BHLS", shape, strict=True))


def _bytes(record: Record) -> int:
    """Return the bytes of queries, keys, masks and tables, each counted once however many calls share it."""
    held: dict[int, int] = {}
    for name in record:
        for matrix in record.calls(name):
            logits = matrix._logits
            parts = (logits.query, logits.key, *logits.attention.tensors().values(), matrix._value)
            for tensor in parts:
                if tensor is not None:
                    storage = tensor.untyped_storage()
                    held[storage.data_ptr()] = storage.nbytes()
    return sum(held.values())
