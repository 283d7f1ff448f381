"""What to compute: the function, the drop-in module. See README.md."""

from clearhead.multihead.functional import attention
from clearhead.multihead.module import MultiheadAttention

__all__ = ["MultiheadAttention", "attention"]
