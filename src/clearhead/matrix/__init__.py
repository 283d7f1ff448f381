"""The heart: an attention matrix that answers questions and is never stored. See README.md."""

from clearhead.matrix.matrix import AttentionMatrix, TransposedMatrix
from clearhead.matrix.rollout import Rollout, rollout

__all__ = ["AttentionMatrix", "Rollout", "TransposedMatrix", "rollout"]
