"""Confidence: how sure the learner was before an answer, in one of four words, and how often each word was right."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from clearhead.course import Calibration
from clearhead.studio.text.translation import _, mark

FEWEST = 5  # with fewer answers, a share means nothing
NEAR = 0.1  # how far the share of right answers may be from the stated chance


@dataclass(frozen=True)
class Level:
    """One of the words, and the chance of being right that it expresses."""

    id: str
    name: str
    stated: float
    key: str


LEVELS = (
    Level("guess", mark("a guess"), 0.3, "1"),
    Level("unsure", mark("unsure"), 0.5, "2"),
    Level("fairly", mark("fairly sure"), 0.7, "3"),
    Level("sure", mark("sure"), 0.9, "4"),
)


@dataclass(frozen=True)
class LevelOutcome:
    """The answers given with one word: how many, and how many of them were right."""

    level: Level
    right: int
    count: int

    @property
    def share(self) -> float:
        """The share of them that were right; 0 if there are none."""
        return self.right / self.count if self.count else 0.0

    @property
    def verdict(self) -> str:
        """A sentence that says whether the stated chance matches the share of right answers."""
        if self.count < FEWEST:
            return _("too few to tell") if self.count else _("not used yet")
        off = self.share - self.level.stated
        if abs(off) <= max(NEAR, sqrt(self.level.stated * (1 - self.level.stated) / self.count)):
            return _("as often as you say")
        return _("more often than you say") if off > 0 else _("less often than you say")


def chance_of(word: object) -> float | None:
    """Return the chance that a form's word expresses; None if none was chosen.

    >>> chance_of("sure"), chance_of(None)
    (0.9, None)
    """
    return next((level.stated for level in LEVELS if level.id == word), None)


def nearest_level(chance: float | None) -> Level | None:
    """Return the level whose chance is nearest to this one."""
    return None if chance is None else min(LEVELS, key=lambda level: abs(level.stated - chance))


def level_outcomes(calibration: Calibration) -> Sequence[LevelOutcome]:
    """Return the outcome of every level, least sure first."""
    outcomes = []
    for level in LEVELS:
        bins = [(share, count) for chance, share, count in calibration.bins if nearest_level(chance) == level]
        right = round(sum(share * count for share, count in bins))
        outcomes.append(LevelOutcome(level, right, sum(count for _share, count in bins)))
    return outcomes
