"""Record what a model attends to: run it unchanged, keep its queries and keys, compute weights later. See README.md."""

from clearhead.capture.interventions.ablation import ablate
from clearhead.capture.interventions.effects import HeadEffect, HeadEffects
from clearhead.capture.interventions.intervene import intervene
from clearhead.capture.media.picture_tokens import PictureTokens, picture_pixels, picture_tokens
from clearhead.capture.media.pictures import read_picture
from clearhead.capture.media.sound import read_sound
from clearhead.capture.media.sound_frames import SoundFrames, sound_frames
from clearhead.capture.media.with_picture import read_with_picture
from clearhead.capture.models.folders import demo_folder
from clearhead.capture.models.loading import Loaded, load
from clearhead.capture.models.reading import Grid, Reading, Sound, read
from clearhead.capture.observing import observe
from clearhead.capture.record import Record
from clearhead.capture.scores import induction_scores, score_record, scores
from clearhead.capture.scoring.head_scores import HeadScores
from clearhead.capture.steps import Missed

__all__ = [
    "Grid",
    "HeadEffect",
    "HeadEffects",
    "HeadScores",
    "Loaded",
    "Missed",
    "PictureTokens",
    "Reading",
    "Record",
    "Sound",
    "SoundFrames",
    "ablate",
    "demo_folder",
    "induction_scores",
    "intervene",
    "load",
    "observe",
    "picture_pixels",
    "picture_tokens",
    "read",
    "read_picture",
    "read_sound",
    "read_with_picture",
    "score_record",
    "scores",
    "sound_frames",
]
