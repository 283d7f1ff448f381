"""The parts of an experiment: its points and program, the guess before it, and the findings after it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from clearhead.studio.explore.experiments.samples import Change, Direction, Samples
from clearhead.studio.text.translation import _

# Key of `found` -> the numbers of every seed at each point, from the first point to the last. "x" is the points.
Column = Callable[[str], Sequence[Samples]]
TIME = 0.1  # measured times that differ by less than this share count as the same


@dataclass(frozen=True)
class Guess:
    """A question to answer before measuring. `right` finds the right answer from the numbers."""

    question: str
    answers: Sequence[str]
    right: Callable[[Column], int]


@dataclass(frozen=True)
class Finding:
    """The guess before measuring, and the sentences about the numbers after it."""

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
        x: the name of the x axis. points: measured from left to right.
        setup: runs once, before the program, which runs once for each seed.
        charts: title of a chart, with its unit -> its keys of `found`, and their names if there are two.
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
        """The setup and the program, as displayed."""
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
    """Return the change from the first point to the last."""
    return Change.between(column(key)[0], column(key)[-1], same=same)


def band(change: Change, low: float, high: float) -> int:
    """Return 0 if the median ratio is below `low`, 1 up to `high`, 2 above."""
    times = change.times.middle
    return 0 if times < low else 1 if times <= high else 2


SIDE: Mapping[Direction, int] = {"falls": 0, "same": 1, "unclear": 1, "rises": 2}
