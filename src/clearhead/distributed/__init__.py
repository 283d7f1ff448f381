"""Attention over a sequence that is sharded over ranks. See README.md."""

from clearhead.distributed.functional import attention
from clearhead.distributed.matrix import ShardedAttentionMatrix, rollout
from clearhead.distributed.sharding import gather, shard
from clearhead.distributed.waiting import Timing, timing

__all__ = ["ShardedAttentionMatrix", "Timing", "attention", "gather", "rollout", "shard", "timing"]
