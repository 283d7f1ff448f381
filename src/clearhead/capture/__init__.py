"""From a model to a record: run it as it is, keep its queries and keys, ask afterwards. See README.md."""

from clearhead.capture.interventions.ablation import ablate
from clearhead.capture.interventions.effects import HeadEffect, HeadEffects
from clearhead.capture.interventions.intervene import intervene
from clearhead.capture.models.loading import Loaded, demo_folder, load
from clearhead.capture.models.pictures import read_picture
from clearhead.capture.models.reading import Grid, Reading, read
from clearhead.capture.observing import observe
from clearhead.capture.record import Missed, Record
from clearhead.capture.scores import induction_scores, score_record, scores
from clearhead.capture.scoring.head_scores import HeadScores

__all__ = [
    "Grid",
    "HeadEffect",
    "HeadEffects",
    "HeadScores",
    "Loaded",
    "Missed",
    "Reading",
    "Record",
    "ablate",
    "demo_folder",
    "induction_scores",
    "intervene",
    "load",
    "observe",
    "read",
    "read_picture",
    "score_record",
    "scores",
]
