"""Sentences about a measured quantity that all experiments share, chosen by its numbers over the seeds."""

from collections.abc import Mapping

from clearhead.studio.explore.experiments.experiment import Column, change
from clearhead.studio.explore.experiments.line_chart import short_number
from clearhead.studio.explore.experiments.samples import SAME, Change, Direction
from clearhead.studio.text.translation import _, mark

_CHANGED: Mapping[Direction, str] = {
    "rises": mark("%(quantity)s rises from %(first)s to %(last)s: %(times)s as much."),
    "falls": mark("%(quantity)s falls from %(first)s to %(last)s: %(times)s as much."),
    "same": mark("%(quantity)s is unchanged: %(first)s, then %(last)s."),
    "unclear": mark("%(quantity)s shows no clear change: %(first)s, then %(last)s, and the seeds disagree."),
}
_APART: Mapping[Direction, str] = {
    "rises": mark("At %(point)s %(unit)s %(quantity)s is larger than %(reference)s: %(last)s against %(first)s."),
    "falls": mark("At %(point)s %(unit)s %(quantity)s is smaller than %(reference)s: %(last)s against %(first)s."),
    "same": mark("At %(point)s %(unit)s %(quantity)s and %(reference)s are the same: %(last)s and %(first)s."),
    "unclear": mark(
        "At %(point)s %(unit)s the seeds disagree on which is larger, %(quantity)s or %(reference)s: "
        "%(last)s against %(first)s."
    ),
}


def changed(
    column: Column, key: str, quantity: str, *, same: float = SAME, meaning: Mapping[Direction, str] | None = None
) -> list[str]:
    """Return how a quantity changes from the first point to the last, and what that means.

    Args:
        quantity: what was measured, as the subject of a sentence.
        meaning: direction -> a sentence to add if the numbers took this direction.
    """
    return _sentences(change(column, key, same=same), _CHANGED, {"quantity": _(quantity)}, meaning)


def apart(
    column: Column, key: str, other: str, quantity: str, reference: str, unit: str, *, same: float = SAME,
    meaning: Mapping[Direction, str] | None = None,
) -> list[str]:  # fmt: skip
    """Return how two quantities compare at the last point.

    Args:
        quantity, reference: what was measured as `key` and as `other`, as parts of a sentence.
        unit: what the points count.
    """
    gap = Change.between(column(other)[-1], column(key)[-1], same=same)
    names = {"quantity": _(quantity), "reference": _(reference), "unit": _(unit)}
    names["point"] = short_number(column("x")[-1][0])
    return _sentences(gap, _APART, names, meaning)


def _sentences(
    change: Change,
    patterns: Mapping[Direction, str],
    names: Mapping[str, str],
    meaning: Mapping[Direction, str] | None,
) -> list[str]:
    values = {"first": change.first.text, "last": change.last.text, "times": change.multiple}
    pattern = patterns[change.direction]
    sentence = _(pattern, **names, **{key: text for key, text in values.items() if f"%({key})s" in pattern})
    reason = (meaning or {}).get(change.direction)
    return [f"{sentence} {_(reason)}"] if reason else [sentence]
