"""From a model to a record: run it as it is, keep its queries and keys, ask afterwards. See README.md."""

from clearhead.capture.models.loading import Loaded, demo_folder, load
from clearhead.capture.models.pictures import read_picture
from clearhead.capture.models.reading import Grid, Reading, read
from clearhead.capture.observing import observe
from clearhead.capture.record import Missed, Record
from clearhead.capture.scores import induction_scores, score_record, scores
from clearhead.capture.scoring.head_scores import HeadScores

__all__ = [
    "Grid",
    "HeadScores",
    "Loaded",
    "Missed",
    "Reading",
    "Record",
    "demo_folder",
    "induction_scores",
    "load",
    "observe",
    "read",
    "read_picture",
    "score_record",
    "scores",
]
