"""Attention over a sequence that is sharded over ranks. See README.md."""

from clearhead.distributed.exchange import Timing, timing
from clearhead.distributed.functional import attention
from clearhead.distributed.matrix import ShardedAttentionMatrix, rollout
from clearhead.distributed.sharding import gather, shard

__all__ = ["ShardedAttentionMatrix", "Timing", "attention", "gather", "rollout", "shard", "timing"]
