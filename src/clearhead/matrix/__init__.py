"""`AttentionMatrix`: multiply, slice and measure attention weights without storing them. See README.md."""

from clearhead.matrix.chain import Rollout, rollout
from clearhead.matrix.matrix import AttentionMatrix
from clearhead.matrix.maxflow import flow
from clearhead.matrix.mean import HeadMean
from clearhead.matrix.store import load, save
from clearhead.matrix.transposed import TransposedMatrix

__all__ = ["AttentionMatrix", "HeadMean", "Rollout", "TransposedMatrix", "flow", "load", "rollout", "save"]
