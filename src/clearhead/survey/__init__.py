"""Measure what each head of a model does over a corpus, and on how many texts. See README.md."""

from clearhead.survey.asks import ASKS, STATISTICS, checked_asks
from clearhead.survey.corpus.opening import open_corpus
from clearhead.survey.settings import Settings
from clearhead.survey.surveying import StoppedSurveyError, Survey, check_installed, survey

__all__ = [
    "ASKS",
    "STATISTICS",
    "Settings",
    "StoppedSurveyError",
    "Survey",
    "check_installed",
    "checked_asks",
    "open_corpus",
    "survey",
]
