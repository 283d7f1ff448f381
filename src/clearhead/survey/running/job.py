"""What a runner is given, whoever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from clearhead.survey.corpus.parts import Corpus, Part
from clearhead.survey.measuring.layout import Layout
from clearhead.survey.settings import Settings

RETRIES = 3  # times a part is tried again after an error of the machine


@dataclass(frozen=True, slots=True)
class Job:
    """A survey, as workers need it; it can be sent to another process.

    Attributes:
        model: what `capture.load` is given.
        trust: whether the code that the model brings is run.
        model_digest: of the model that the survey began with.
        corpus, settings, layout: what is read, asked, and of which heads.
        digest: of the survey's settings, for the files.
    """

    model: str | None
    trust: bool
    model_digest: str
    corpus: Corpus
    settings: Settings
    layout: Layout
    digest: str

    @property
    def total(self) -> int:
        """How many texts are surveyed."""
        limit = self.settings.limit
        return self.corpus.texts if limit is None else min(limit, self.corpus.texts)


Files = dict[str, bytes]


class Runner(Protocol):
    """Computes parts and gives each one's files, in any order."""

    def __call__(self, job: Job, parts: list[Part], workers: int, tell: Callable[[int], None]) -> Iterator[Files]: ...
