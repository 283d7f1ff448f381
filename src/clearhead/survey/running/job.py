"""The input of a runner, in this process or on Ray."""

from __future__ import annotations

import time
from dataclasses import dataclass

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

    def read(self, part: Part) -> list[str | None]:
        """Return the texts of a part; tries again after an OSError, such as that of a network drive."""
        for attempt in range(RETRIES):
            try:
                return self.corpus.read(part)
            except Exception as error:
                if not isinstance(error.__cause__ or error, OSError):
                    raise
                time.sleep(0.2 * 2**attempt)
        return self.corpus.read(part)


Files = dict[str, bytes]  # the files of a part by name; a runner yields those of each part, in any order
