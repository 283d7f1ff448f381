"""The parts of an experiment: its points and program, the guess before it, and what is said of its numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from clearhead.studio.explore.experiments.samples import Change, Direction, Samples
from clearhead.studio.text.translation import _

# Key of `found` -> the numbers of every seed at each point, from the first point to the last. "x" is the points.
Column = Callable[[str], Sequence[Samples]]
TIME = 0.1  # a relative difference of measured times up to which they count as the same


@dataclass(frozen=True)
class Guess:
    """A question to answer before measuring. `right` says from the numbers which answer is."""

    question: str
    answers: Sequence[str]
    right: Callable[[Column], int]


@dataclass(frozen=True)
class Finding:
    """What to guess, and what to say of the numbers."""

    guess: Guess
    sentences: Callable[[Column], list[str]]


@dataclass(frozen=True)
class Setting:
    """A slider: its name in the program and the values it steps through."""

    name: str
    label: str
    values: Sequence[int]
    start: int  # index of the initial value


@dataclass(frozen=True)
class Experiment:
    """One question, the points to measure, and the program that measures one.

    Attributes:
        x: what the points are, in words. points: measured from left to right.
        setup: runs once, before the program, which runs once for each seed.
        charts: what a picture shows, with its unit -> its keys of `found`, and their names where there are two.
    """

    id: str
    title: str
    question: str
    x: str
    points: Sequence[float]
    settings: Sequence[Setting]
    charts: Mapping[str, Mapping[str, str]]
    program: str
    setup: str = ""

    @property
    def source(self) -> str:
        """The setup and the program, as they are shown."""
        return "\n\n".join(part.strip() for part in (self.setup, self.program) if part)

    @property
    def columns(self) -> dict[str, str]:
        """Key of `found` -> the heading of its column, in the language of this request."""
        return {
            key: f"{_(chart)}, {_(name)}" if name else _(chart)
            for chart, series in self.charts.items()
            for key, name in series.items()
        }


def change(column: Column, key: str, *, same: float = 0.02) -> Change:
    """From the first point to the last."""
    return Change.between(column(key)[0], column(key)[-1], same=same)


def band(change: Change, low: float, high: float) -> int:
    """0 where the middle of the ratio is below `low`, 1 up to `high`, 2 above."""
    times = change.times.middle
    return 0 if times < low else 1 if times <= high else 2


SIDE: Mapping[Direction, int] = {"falls": 0, "same": 1, "unclear": 1, "rises": 2}
