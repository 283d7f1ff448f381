"""Compare the weights that multiply the values with the softmax they come from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from clearhead.capture.softmax_tracing import layouts
from clearhead.capture.softmax_tracing.fit_logits import allowed

# Up to this many weights are all compared; of more, this many rows of each head.
WHOLE = 2**20
ROWS = 16


@dataclass(slots=True)
class SoftmaxWeights:
    """The output of a softmax, copied only when the model is about to overwrite it.

    Attributes:
        logits: its input.
        given: its output; None for an exponential, whose sum is computed later.
        axis: the axis it ran over; None for an exponential, until its values are known.
        layout: the layout of its output.
        is_exponential: whether the model computes exponentials and divides by their sum later.
    """

    logits: Tensor
    given: Tensor | None
    axis: int | None
    layout: layouts.Layout
    is_exponential: bool = False

    @classmethod
    def of(cls, logits: Tensor, out: Tensor, axis: int | None) -> SoftmaxWeights:
        """Return the weights of a softmax over `axis`, or of an exponential."""
        return cls(logits.detach(), None if axis is None else out.detach(), axis, layouts.layout(out), axis is None)

    def keep(self, target: Tensor) -> None:
        """Copy the tensor that is about to be overwritten."""
        memory = layouts.storage(target)
        if layouts.storage(self.logits) == memory:
            self.logits = _copied(self.logits)
        if self.given is not None and layouts.storage(self.given) == memory:
            self.given = _copied(self.given)

    def runs_along(self, now: layouts.Layout, summed: list[int]) -> bool:
        """Whether the axes `summed` of a layout are the axis that the softmax ran over."""
        if self.axis is None:
            return self._axis_of(now, summed) is not None
        return _same_axis(self.layout, self.axis, now, summed)

    def part_along(self, now: layouts.Layout, summed: list[int]) -> list[int]:
        """Return those axes of `summed` that the softmax ran over, such as keys besides heads; else all."""
        if self.axis is None or self.runs_along(now, summed):
            return summed
        part: list[int] = []
        step = self.layout.stride(self.axis)
        for place in sorted(summed, key=now.stride):
            if now.stride(place) == step and not _same_axis(self.layout, self.axis, now, part):
                part.append(place)
                step *= now.shape[place]
        return part if _same_axis(self.layout, self.axis, now, part) else summed

    def touches(self, now: layouts.Layout, summed: list[int]) -> bool:
        """Whether the axes `summed` are part of the axis that the softmax ran over."""
        if self.axis is None or self.layout.shape[self.axis] == 1:
            return False
        step = self.layout.stride(self.axis)
        return any(now.stride(n) == step for n in summed)

    def choose_axis(self, now: layouts.Layout, summed: list[int]) -> None:
        """Treat an exponential as the softmax over the axis along which it is summed with the values."""
        if self.axis is not None:
            return
        self.axis = self._axis_of(now, summed)
        if self.axis is not None:
            whole = torch.empty_strided(self.layout.shape, self.layout.stride(), dtype=self.logits.dtype)
            self.given = whole.to(self.logits.device).copy_(torch.softmax(self.logits, self.axis))

    def _axis_of(self, now: layouts.Layout, summed: list[int]) -> int | None:
        matching = [axis for axis in range(self.layout.dim()) if _same_axis(self.layout, axis, now, summed)]
        return matching[-1] if matching else None


@dataclass(frozen=True, slots=True)
class MatchedWeights:
    """Weights that are a softmax of `logits`; they hold `count` of its `total` numbers."""

    logits: Tensor
    count: int
    total: int


@torch.no_grad()
def match_softmax(
    weights: SoftmaxWeights, applied: Tensor, now: layouts.Layout | None, summed: list[int]
) -> MatchedWeights | None:
    """Return the logits whose softmax the applied weights are: the softmax itself, or one renormalised over some keys.

    Args:
        weights: the softmax that they came from.
        applied: the operand of the product with the values.
        now: its layout; None if it was lost.
        summed: the axes of `applied` that the product sums over.

    Returns:
        The match, or None if these weights are not a softmax of the logits.
    """
    if now is None or not applied.is_floating_point() or not weights.runs_along(now, summed):
        return None
    weights.choose_axis(now, summed)
    if weights.given is None or weights.axis is None:
        return None
    if not weights.is_exponential and _overwritten(weights):
        return None
    repeated = [axis for axis, s in enumerate(now.stride()) if s == 0 and now.shape[axis] > 1]
    for axis in reversed(repeated):
        applied, now = applied.select(axis, 0), now.select(axis, 0)
    count, total = applied.numel(), weights.given.numel()
    if _equal_to_rounding(
        *_sample_rows(applied.detach(), layouts.placed(weights.given, now), [n for n in summed if n not in repeated])
    ):
        return MatchedWeights(weights.logits, count, total)
    logits = _masked(weights, applied.detach(), now) if count == total else None
    return None if logits is None else MatchedWeights(logits, count, total)


def _masked(weights: SoftmaxWeights, applied: Tensor, now: layouts.Layout) -> Tensor | None:
    """Return the logits without the keys that a mask removed after the softmax, if the rest was renormalised."""
    assert weights.given is not None and weights.axis is not None  # noqa: PT018, S101 (match_softmax has looked)
    whole = torch.empty_strided(weights.given.shape, weights.given.stride(), dtype=applied.dtype, device=applied.device)
    layouts.placed(whole, now).copy_(applied)
    values, softmax, logits = (t.movedim(weights.axis, -1) for t in (whole, weights.given, weights.logits))
    idle = ~allowed(logits).any(-1, keepdim=True) | softmax.isnan().any(-1, keepdim=True)  # may attend nothing: zero
    values, softmax = (t.masked_fill(idle, 0.0) for t in (values, softmax))
    if _equal_to_rounding(values, softmax):
        return weights.logits
    left = softmax.masked_fill(values == 0, 0.0)
    if not _equal_to_rounding(values, torch.nan_to_num(left / left.sum(-1, keepdim=True))):
        return None
    return logits.masked_fill((values == 0) & ~idle, -torch.inf).movedim(-1, weights.axis)


def _overwritten(weights: SoftmaxWeights) -> bool:
    """Whether the softmax was changed without a torch function: by NumPy, or by a compiled extension."""
    assert weights.given is not None and weights.axis is not None  # noqa: PT018, S101 (match_softmax has looked)
    given, logits = _sample_rows(weights.given, weights.logits, [weights.axis])
    return not _equal_to_rounding(given, torch.softmax(logits, weights.axis, dtype=given.dtype))


def _sample_rows(applied: Tensor, softmax: Tensor, summed: list[int]) -> tuple[Tensor, Tensor]:
    """Return both tensors, or a few rows of each head of both."""
    others = [axis for axis in range(applied.dim()) if axis not in {n % applied.dim() for n in summed}]
    if applied.numel() <= WHOLE or not others:
        return applied, softmax
    rows = max(others, key=lambda axis: applied.shape[axis])
    few = torch.linspace(0, applied.shape[rows] - 1, min(ROWS, applied.shape[rows]), device=applied.device).long()
    return applied.index_select(rows, few), softmax.index_select(rows, few)


def _equal_to_rounding(applied: Tensor, softmax: Tensor) -> bool:
    """Whether two weights are equal to rounding. Rows of an empty softmax (NaN) are left out."""
    if applied.dtype == softmax.dtype and torch.equal(applied, softmax):
        return True
    close = 4 * max(torch.finfo(applied.dtype).eps, torch.finfo(softmax.dtype).eps)
    wide = torch.promote_types(applied.dtype, softmax.dtype)
    applied, softmax = applied.to(wide), softmax.to(wide)
    off = ((applied - softmax).abs() - close * (1 + softmax.abs())).masked_fill(softmax.isnan(), -1.0)
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
