"""keep: let a record hold a tensor, with a copy only when something writes to it.

Copying queries and keys took 1.5 ms of the 75 ms of MiniLM on 512 tokens (Emerald Rapids, two threads), although almost
no model writes to them afterwards. Torch's copy-on-write storages delay the copy until one of the two tensors is
written to; that one then moves to new memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Private to torch, so it may be missing in another release: then every tensor is copied at once.
_lazy_clone: Any = getattr(torch, "_lazy_clone", None)


def keep(tensor: Tensor) -> Tensor:
    """Return a tensor with the same numbers, without a gradient, that later writes to the original do not change.

    It shares memory only with a tensor that fills its storage: a view would keep all of a joined q-k-v product, or of a
    cache, alive. Memory that torch did not allocate is copied, because other code may write to it unseen.

    Example:
        >>> query = torch.zeros(3, 5)
        >>> kept = keep(query)
        >>> query += 1
        >>> kept.sum()
        tensor(0.)
    """
    tensor = tensor.detach()
    if _lazy_clone is not None and type(tensor) is Tensor and tensor.is_cpu and not tensor.is_neg():
        try:
            if tensor.untyped_storage().nbytes() == tensor.nbytes:
                shared: Tensor = _lazy_clone(tensor)
                return shared
        except RuntimeError:  # memory of another allocator, or a wrapper of torch.func
            pass
    return tensor.clone(memory_format=torch.contiguous_format)
