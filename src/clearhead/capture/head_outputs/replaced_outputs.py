"""Track the attention outputs that interventions replace, so that an observer checks what the model itself computed.

Observers and interventions may be nested in any order; an observer inside an intervention sees the replaced output.
"""

from __future__ import annotations

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_before: WeakIdKeyDictionary = WeakIdKeyDictionary()  # replacing output -> the model's own
_after: WeakIdKeyDictionary = WeakIdKeyDictionary()  # the model's own output -> what replaced it


def note_edit(out: Tensor, edited: Tensor) -> Tensor:
    """Note that `edited` replaces `out`, which may be a replacement itself. Return `edited`."""
    own = before_edits(out)
    _before[edited], _after[own] = own, edited
    return edited


def before_edits(out: Tensor) -> Tensor:
    """Return the output as the model computed it."""
    return _before.get(out, out) if isinstance(out, Tensor) and len(_before) else out


def after_edits(out: Tensor) -> Tensor:
    """Return the output that the model continues with."""
    return _after.get(out, out) if len(_after) else out
