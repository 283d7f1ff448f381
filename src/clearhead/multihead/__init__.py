"""`attention`, the drop-in module, KV cache, rotary positions and integrations. See README.md."""

from clearhead.multihead.acceleration import accelerate
from clearhead.multihead.cache import KVCache
from clearhead.multihead.functional import attention
from clearhead.multihead.hard import hard_attention, reinforce
from clearhead.multihead.layer.module import MultiheadAttention
from clearhead.multihead.positions import Rotary
from clearhead.multihead.replace import Replacement, replace_attention
from clearhead.multihead.transformers_backend import register_with_transformers
from clearhead.multihead.varlen import attention_varlen

__all__ = [
    "KVCache",
    "MultiheadAttention",
    "Replacement",
    "Rotary",
    "accelerate",
    "attention",
    "attention_varlen",
    "hard_attention",
    "register_with_transformers",
    "reinforce",
    "replace_attention",
]
