"""The heart: an attention matrix that answers questions and is never stored. See README.md."""

from clearhead.matrix.chain import Rollout, rollout
from clearhead.matrix.matrix import AttentionMatrix
from clearhead.matrix.maxflow import flow
from clearhead.matrix.mean import HeadMean
from clearhead.matrix.store import load, save
from clearhead.matrix.transposed import TransposedMatrix

__all__ = ["AttentionMatrix", "HeadMean", "Rollout", "TransposedMatrix", "flow", "load", "rollout", "save"]
