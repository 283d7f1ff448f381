"""The weights that multiply the values, compared with the softmax they came from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from clearhead.capture.softmax_tracing import layouts
from clearhead.capture.softmax_tracing.fit_logits import allowed

# Weights up to this many are compared whole; of larger ones, this many rows of each head.
WHOLE = 2**20
ROWS = 16


@dataclass(slots=True)
class Weights:
    """What a softmax gave, as it was then: kept from being overwritten, not copied.

    Attributes:
        logits: what went in.
        given: what came out; None for an exponential, whose sum is taken later.
        axis: what it ran over; None for an exponential, until its values are known.
        layout: the layout of what came out.
        by_hand: whether it began as an exponential.
    """

    logits: Tensor
    given: Tensor | None
    axis: int | None
    layout: layouts.Layout
    by_hand: bool = False

    @classmethod
    def of(cls, logits: Tensor, out: Tensor, axis: int | None) -> Weights:
        """Of a softmax over `axis`, or of an exponential."""
        return cls(logits.detach(), None if axis is None else out.detach(), axis, layouts.layout(out), axis is None)

    def keep(self, target: Tensor) -> None:
        """Copy what is about to be overwritten."""
        memory = layouts.storage(target)
        if layouts.storage(self.logits) == memory:
            self.logits = _copied(self.logits)
        if self.given is not None and layouts.storage(self.given) == memory:
            self.given = _copied(self.given)

    def runs_along(self, now: layouts.Layout, summed: list[int]) -> bool:
        """Whether the places `summed` of a layout are the axis the softmax ran over."""
        if self.axis is None:
            return self._axis_of(now, summed) is not None
        return _same_axis(self.layout, self.axis, now, summed)

    def touches(self, now: layouts.Layout, summed: list[int]) -> bool:
        """Whether the places `summed` are a part of the axis the softmax ran over."""
        if self.axis is None or self.layout.shape[self.axis] == 1:
            return False
        step = self.layout.stride(self.axis)
        return any(now.stride(n) == step for n in summed)

    def settle(self, now: layouts.Layout, summed: list[int]) -> None:
        """Take an exponential for the softmax over the axis that its values are summed along."""
        if self.axis is not None:
            return
        self.axis = self._axis_of(now, summed)
        if self.axis is not None:
            whole = torch.empty_strided(self.layout.shape, self.layout.stride(), dtype=self.logits.dtype)
            self.given = whole.to(self.logits.device).copy_(torch.softmax(self.logits, self.axis))

    def _axis_of(self, now: layouts.Layout, summed: list[int]) -> int | None:
        found = [axis for axis in range(self.layout.dim()) if _same_axis(self.layout, axis, now, summed)]
        return found[-1] if found else None


@dataclass(frozen=True, slots=True)
class Used:
    """Weights that are a softmax of `logits`; `count` of its `total` numbers are among them."""

    logits: Tensor
    count: int
    total: int


@torch.no_grad()
def as_used(weights: Weights, used: Tensor, now: layouts.Layout | None, summed: list[int]) -> Used | None:
    """The logits whose softmax the weights in use are: the softmax itself, or that of some keys, normalised again.

    Args:
        weights: the softmax that they came from.
        used: the operand of the product with the values.
        now: its layout; None if it was lost.
        summed: the axes of `used` that the product sums over.

    Returns:
        None if the weights in use are no softmax of these logits.
    """
    if now is None or not used.is_floating_point() or not weights.runs_along(now, summed):
        return None
    weights.settle(now, summed)
    if weights.given is None or weights.axis is None:
        return None
    if not weights.by_hand and _overwritten(weights):
        return None
    repeated = [axis for axis, s in enumerate(now.stride()) if s == 0 and now.shape[axis] > 1]
    for axis in reversed(repeated):
        used, now = used.select(axis, 0), now.select(axis, 0)
    count, total = used.numel(), weights.given.numel()
    if _alike(*_some(used.detach(), layouts.placed(weights.given, now), [n for n in summed if n not in repeated])):
        return Used(weights.logits, count, total)
    logits = _masked(weights, used.detach(), now) if count == total else None
    return None if logits is None else Used(logits, count, total)


def _masked(weights: Weights, used: Tensor, now: layouts.Layout) -> Tensor | None:
    """The logits without the keys that a mask took out after the softmax, if what is left was normalised again."""
    assert weights.given is not None and weights.axis is not None  # noqa: PT018, S101 (as_used has looked)
    whole = torch.empty_strided(weights.given.shape, weights.given.stride(), dtype=used.dtype, device=used.device)
    layouts.placed(whole, now).copy_(used)
    found, softmax, logits = (t.movedim(weights.axis, -1) for t in (whole, weights.given, weights.logits))
    idle = ~allowed(logits).any(-1, keepdim=True) | softmax.isnan().any(-1, keepdim=True)  # may attend nothing: zero
    found, softmax = (t.masked_fill(idle, 0.0) for t in (found, softmax))
    if _alike(found, softmax):
        return weights.logits
    left = softmax.masked_fill(found == 0, 0.0)
    if not _alike(found, torch.nan_to_num(left / left.sum(-1, keepdim=True))):
        return None
    return logits.masked_fill((found == 0) & ~idle, -torch.inf).movedim(-1, weights.axis)


def _overwritten(weights: Weights) -> bool:
    """Whether the softmax was changed where no torch function is seen: in NumPy, or by a compiled extension."""
    assert weights.given is not None and weights.axis is not None  # noqa: PT018, S101 (as_used has looked)
    given, logits = _some(weights.given, weights.logits, [weights.axis])
    return not _alike(given, torch.softmax(logits, weights.axis, dtype=given.dtype))


def _some(used: Tensor, softmax: Tensor, summed: list[int]) -> tuple[Tensor, Tensor]:
    """Both, or a few rows of each head of both."""
    others = [axis for axis in range(used.dim()) if axis not in {n % used.dim() for n in summed}]
    if used.numel() <= WHOLE or not others:
        return used, softmax
    rows = max(others, key=lambda axis: used.shape[axis])
    few = torch.linspace(0, used.shape[rows] - 1, min(ROWS, used.shape[rows]), device=used.device).long()
    return used.index_select(rows, few), softmax.index_select(rows, few)


def _alike(used: Tensor, softmax: Tensor) -> bool:
    """Whether two weights differ by rounding alone; rows of a softmax over nothing (NaN) are left out."""
    if used.dtype == softmax.dtype and torch.equal(used, softmax):
        return True
    close = 4 * max(torch.finfo(used.dtype).eps, torch.finfo(softmax.dtype).eps)
    wide = torch.promote_types(used.dtype, softmax.dtype)
    used, softmax = used.to(wide), softmax.to(wide)
    off = ((used - softmax).abs() - close * (1 + softmax.abs())).masked_fill(softmax.isnan(), -1.0)
    return bool((off <= 0).all())


def _same_axis(original: layouts.Layout, axis: int, now: layouts.Layout, places: list[int]) -> bool:
    if math.prod(now.shape[n] for n in places) != original.shape[axis]:
        return False
    steps = sorted((now.stride(n), now.shape[n]) for n in places if now.shape[n] > 1)
    step = original.stride(axis)
    for stride, size in steps:
        if stride != step:
            return False
        step *= size
    return True


def _copied(tensor: Tensor) -> Tensor:
    copy = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return copy.copy_(tensor)
