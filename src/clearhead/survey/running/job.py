"""The input of a runner, in this process or on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from clearhead.survey.corpus.parts import Corpus, Part
from clearhead.survey.measuring.layout import Layout
from clearhead.survey.settings import Settings

RETRIES = 3  # how often reading a part is retried after an OSError


@dataclass(frozen=True, slots=True)
class Job:
    """A survey as workers need it. It can be sent to another process.

    Attributes:
        model: the argument of `capture.load`.
        trust: whether code that comes with the model may run.
        model_digest: the digest of the model that the survey began with.
        corpus, settings, layout: the texts, what to ask, and the heads.
        digest: the digest of the survey's settings, for the files.
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
        """The number of texts in the survey."""
        limit = self.settings.limit
        return self.corpus.texts if limit is None else min(limit, self.corpus.texts)


Files = dict[str, bytes]


class Runner(Protocol):
    """Computes parts and yields the files of each, in any order."""

    def __call__(self, job: Job, parts: list[Part], workers: int, tell: Callable[[int], None]) -> Iterator[Files]: ...
