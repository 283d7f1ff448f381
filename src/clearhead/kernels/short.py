"""The short way to the native kernel, for the commonest calls: a mask at most, no gradient, and nobody watching.

Describing a problem, checking it and choosing a kernel take 40 µs, more than a small attention does itself.
"""

import torch
from torch import Tensor

from clearhead.kernels.native import attend_plainly, covers


def attend(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float | None, mask: Tensor | None = None
) -> Tensor | None:
    """Output (B, H, L, D) of plain attention, or None where the call has to go the long way.

    The long way is for all but plain float32, bfloat16 or float16 tensors on the CPU, query (B, H, L, D), key and value
    (B, H, S, D), mask broadcastable to (B, H, L, S), bool or of their dtype, without gradients; and wherever torch
    records, transforms or watches what is called.

    Example:
        >>> q = torch.ones(1, 2, 3, 5)
        >>> out = attend(q, q, q, False, None)
        >>> out is None or torch.equal(out, q)
        True
        >>> attend(q.double(), q.double(), q.double(), False, None) is None
        True
    """
    if torch.compiler.is_compiling() or _is_watched() or not _is_plain(query, key, value):
        return None
    if mask is not None and (is_causal or not _fits(mask, query, key)):
        return None
    if scale is None:
        scale = query.shape[-1] ** -0.5
    return attend_plainly(query, key, value, is_causal, scale, mask) if type(scale) is float else None


def _is_watched() -> bool:
    """Whether a mode, a transform, a tracer or autocast has to see the call."""
    return bool(
        torch._C._len_torch_function_stack()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._is_tracing()
        or torch.is_autocast_enabled("cpu")
    )


def _is_plain(query: Tensor, key: Tensor, value: Tensor) -> bool:
    if not type(query) is type(key) is type(value) is Tensor:
        return False
    if query.is_nested or key.is_nested or value.is_nested:
        return False
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad):
        return False
    if not (query.is_cpu and key.is_cpu and value.is_cpu and covers(query.dtype)):
        return False
    if not query.dtype is key.dtype is value.dtype:
        return False
    shape, shared = query.shape, key.shape
    if not (len(shape) == len(shared) == 4 and shared == value.shape):
        return False
    return shape[0] == shared[0] and shape[1] == shared[1] and shape[3] == shared[3] != 0


def _fits(mask: Tensor, query: Tensor, key: Tensor) -> bool:
    if type(mask) is not Tensor or not mask.is_cpu or (mask.requires_grad and torch.is_grad_enabled()):
        return False
    if mask.dtype is not torch.bool and mask.dtype is not query.dtype:
        return False
    shape, rows = mask.shape, query.shape
    if not 2 <= len(shape) <= 4 or shape[-1] not in (1, key.shape[2]) or shape[-2] not in (1, rows[2]):
        return False
    return all(size in (1, full) for size, full in zip(reversed(shape[:-2]), (rows[1], rows[0]), strict=False))
