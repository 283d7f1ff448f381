"""Join the masks and biases of a generation's calls: into a band, a band and padding, or a table."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead.capture.positions import Positions
from clearhead.matrix import AttentionMatrix
from clearhead.spec import EVERYWHERE, Attention, Band
from clearhead.spec.band import outside

ROWS = 256  # rows of a mask that are compared at a time


@dataclass(frozen=True, slots=True)
class PlacedCall:
    """One call: its matrix, and the positions of its queries and keys."""

    matrix: AttentionMatrix
    positions: Positions


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a call that enter a joined matrix, and their place there.

    Attributes:
        call: the call.
        rows: how many of its first rows.
        row, key: the indices of its query 0 and its key 0 in the joined matrix.
    """

    call: PlacedCall
    rows: int
    row: int
    key: int

    @property
    def attention(self) -> Attention:
        """The call's attention."""
        return self.call.matrix._logits.attention


def band(parts: list[Part], size: int) -> Band | None:
    """Return the band that all masks together form, or None."""
    if any(part.attention.allow is not None or part.attention.rule is not None for part in parts):
        return None
    spans = [_spans(part, size) for part in parts]
    low, high = (torch.cat([span[side] for span in spans]) for side in (0, 1))
    place = torch.arange(len(low))
    below, above = int(low[-1] - place[-1]), int(high[-1] - place[-1])
    for reach in (EVERYWHERE, (None, above), (below, None), (below, above)):
        first = torch.zeros_like(place) if reach[0] is None else (place + reach[0]).clamp(0)
        last = torch.full_like(place, size - 1) if reach[1] is None else (place + reach[1]).clamp(max=size - 1)
        if torch.equal(first, low) and torch.equal(last, high):
            return reach
    return None


def band_and_padding(parts: list[Part], size: int, rows: int) -> tuple[int, Tensor | None]:
    """Return (above, real) if row i attends the real keys, (B or 1, H or 1, 1, S), up to i + above; else None."""
    above = size - rows
    if above < 0 or any(part.attention.rule is not None for part in parts):
        return 0, None
    last = parts[-1]
    real = _mask_rows(last, range(last.rows - 1, last.rows), size)
    place = torch.arange(size, device=real.device)
    for part in parts:
        for start in range(0, part.rows, ROWS):
            few = range(start, min(start + ROWS, part.rows))
            row = torch.arange(few.start, few.stop, device=real.device) + part.row
            if not bool((_mask_rows(part, few, size) == (real & (place <= row[:, None] + above))).all()):
                return 0, None
    return above, real


def _spans(part: Part, size: int) -> tuple[Tensor, Tensor]:
    """Return the first and last key of the joined matrix that the band of a call allows each of its rows."""
    low, high = part.attention.reach
    keys, place = part.call.matrix.shape[3], torch.arange(part.rows)
    first = torch.zeros_like(place) if low is None else (place + low).clamp(0)
    last = torch.full_like(place, keys - 1) if high is None else (place + high).clamp(max=keys - 1)
    return first + part.key, (last + part.key).clamp(max=size - 1)


def mask_of(part: Part, size: int) -> Tensor:
    """Return (B or 1, H or 1, rows, size): where a call's queries may attend, in indices of the joined matrix."""
    return _mask_rows(part, range(part.rows), size)


def _mask_rows(part: Part, rows: range, size: int) -> Tensor:
    """The same of some of its rows."""
    logits = part.call.matrix._logits.part(slice(rows.start, rows.stop), slice(0, part.call.matrix.shape[3]))
    allow = logits.allowed(range(len(rows)))
    if allow is None:
        allow = torch.ones(1, 1, len(rows), logits.shape[3], dtype=torch.bool, device=logits.query.device)
    allow = allow.expand(*allow.shape[:2], len(rows), logits.shape[3])
    reach = logits.attention.reach
    if reach != EVERYWHERE:
        place, keys = (torch.arange(size, device=allow.device) for size in allow.shape[2:])
        allow = allow & ~outside(reach, place[:, None], keys)
    return F.pad(allow, (part.key, size - part.key - logits.shape[3]))


def bias_of(part: Part, size: int) -> Tensor:
    logits = part.call.matrix._logits
    bias = logits.query.new_zeros(1, 1, 1, 1) if logits.attention.bias is None else logits.attention.bias
    bias = bias.expand(*bias.shape[:2], logits.shape[2], logits.shape[3])[:, :, : part.rows]
    return F.pad(bias, (part.key, size - part.key - logits.shape[3]))


def table(parts: list[Tensor]) -> Tensor:
    """Stack the parts one below the other, expanding those that all heads or batch entries share."""
    batch, heads = (max(part.shape[axis] for part in parts) for axis in (0, 1))
    return torch.cat([part.expand(batch, heads, *part.shape[2:]) for part in parts], 2)
