"""A measured number over several seeds: its median and range, and its change from one point to another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from clearhead.studio.explore.experiments.line_chart import short_number
from clearhead.studio.text.translation import _

Samples = Sequence[float]  # one number a seed, in the order of the seeds
Direction = Literal["rises", "falls", "same", "unclear"]
SAME = 0.02  # a relative difference up to this counts as no change


@dataclass(frozen=True)
class SampleRange:
    """The median of some numbers, and their range."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, samples: Samples) -> "SampleRange":
        """Return the median and the range of the numbers of all seeds.

        >>> SampleRange.of([3.0, 1.0, 2.5])
        SampleRange(low=1.0, middle=2.5, high=3.0)
        """
        return cls(min(samples), median(samples), max(samples))

    @property
    def text(self) -> str:
        """The median, with the range if it differs after rounding: `2.5 (1 to 3)`."""
        low, middle, high = short_number(self.low), short_number(self.middle), short_number(self.high)
        return middle if low == high else _("%(middle)s (%(low)s to %(high)s)", middle=middle, low=low, high=high)


@dataclass(frozen=True)
class Change:
    """How a number differs between two points, seed by seed.

    Attributes:
        first, last: the number at either point.
        times: the last as a multiple of the first. Each seed is compared only with itself.
        direction: "rises" or "falls" if every seed agrees; "same" if none differs by more than the tolerance, or if all
            differ by too little to show.
    """

    first: SampleRange
    last: SampleRange
    times: SampleRange
    direction: Direction

    @classmethod
    def between(cls, first: Samples, last: Samples, *, same: float = SAME) -> "Change":
        """Return the change from one point to another.

        Args:
            same: the relative difference up to which the number counts as unchanged; larger for measured times.
        """
        ratios = [_ratio(start, end) for start, end in zip(first, last, strict=True)]
        times = SampleRange.of(ratios)
        direction: Direction = "unclear"
        before, after = SampleRange.of(first), SampleRange.of(last)
        if 1 - same <= times.low and times.high <= 1 + same:
            direction = "same"
        elif times.low > 1 and times.middle > 1 + same:
            direction = "rises"
        elif times.high < 1 and times.middle < 1 - same:
            direction = "falls"
        if direction != "unclear" and before.text == after.text:
            direction = "same"
        return cls(before, after, times, direction)

    def sentence(self, patterns: Mapping[Direction, str]) -> str:
        """Return the sentence for this direction, with `%(first)s`, `%(last)s` and `%(times)s` filled in."""
        return _(patterns[self.direction], first=self.first.text, last=self.last.text, times=self.multiple)

    @property
    def multiple(self) -> str:
        """Return the factor in words: `about twice (1.8 to 2.3)`."""
        middle, low, high = self.times.middle, short_number(self.times.low), short_number(self.times.high)
        if middle == float("inf"):
            return _("infinitely many times")
        words = (
            _("about twice")
            if 1.9 <= middle <= 2.1
            else _("about half")
            if 0.475 <= middle <= 0.525
            else _("%(times)s times", times=short_number(middle))
        )
        return words if low == high else _("%(words)s (%(low)s to %(high)s)", words=words, low=low, high=high)


def _ratio(before: float, after: float) -> float:
    if before:
        return after / before
    return float("inf") if after > 0 else 1.0
