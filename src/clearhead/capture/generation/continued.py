"""Join a record that starts from a KV cache with the record of what filled the cache."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clearhead.capture.record import Record
    from clearhead.capture.steps import Step


def continued(earlier: Record, length: int, later: Record) -> Record:
    """Return a record of the first `length` tokens of an earlier record and of everything in a later one.

    Args:
        earlier: the record of a text, from its beginning.
        length: how many of its tokens were in the cache when `later` began.
        later: a record of the same modules.

    Memory: shared with both; keys once if the later ones begin with the earlier.
    """
    whole = type(later)(missed=list(later.missed), _order=list(later._order), read=dict(later.read))
    for item in earlier.missed:
        if item not in whole.missed:
            whole.missed.append(item)
    for name in dict.fromkeys((*earlier, *later)):
        steps, added = earlier._steps.get(name, []), later._steps.get(name, [])
        before = [step for step in steps if step.positions is None or step.positions.queries.positions[0] < length]
        whole._steps[name] = [*_sharing_keys(before, added), *added]
    return whole


def _sharing_keys(before: list[Step], added: list[Step]) -> list[Step]:
    """Return steps that use the keys of the added ones if these begin with their own, else their own keys."""
    if not before or not added or before[-1].keys.chain is not None or added[0].keys.chain is not None:
        return before
    shared = before[-1].keys
    if shared.seen is not None or added[0].keys.seen is not None or not before[-1].grew_into(added[0]):
        return before
    return [replace(step, keys=added[0].keys, _made=None) if step.keys is shared else step for step in before]
