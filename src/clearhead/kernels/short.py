"""The short way to a kernel, for the commonest calls: a mask at most, and nobody watching.

Describing a problem, checking it and choosing a kernel take 40 µs, more than a small attention does itself, and as much
again on the way back. The native kernel computes what it covers, but where gradients of something tiny are wanted
(choice.py says how tiny); torch's function computes that and float64.
"""

from typing import Any

import torch
from torch import Tensor

from clearhead.kernels.autograd import backward
from clearhead.kernels.choice import torch_learns_faster
from clearhead.kernels.native import attend_plainly, covers, gradients_plainly, leaves_a_row_nothing
from clearhead.kernels.problem import carries_tangent

# The function behind F.scaled_dot_product_attention, whose name some programs give to ours.
_sdpa = torch._C._nn.scaled_dot_product_attention
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def attend(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float | None, mask: Tensor | None = None
) -> Tensor | None:
    """Output (B, H, L, D) of plain attention, or None where the call has to go the long way.

    The long way is for all but plain tensors on the CPU, query (B, H, L, D), key and value (B, H, S, D), mask
    broadcastable to (B, H, L, S), bool or of their dtype, without gradients of its own; and wherever torch records,
    transforms or watches what is called.

    Example:
        >>> q = torch.ones(1, 2, 3, 5)
        >>> out = attend(q, q, q, False, None)
        >>> out is None or torch.equal(out, q)
        True
        >>> attend(q.double(), q, q, False, None) is None
        True
    """
    if torch.compiler.is_compiling() or _is_watched() or not _is_plain(query, key, value):
        return None
    if carries_tangent(query, key, value, mask):
        return None
    full = None  # the mask as every row of every head meets it
    if mask is not None:
        full = None if is_causal else _spread(mask, query, key)
        if full is None:
            return None
    if scale is None:
        scale = query.shape[-1] ** -0.5
    if type(scale) is not float:
        return None
    learns = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    if covers(query.dtype) and not learns:
        return attend_plainly(query, key, value, is_causal, scale, full)[0]
    if covers(query.dtype) and not torch_learns_faster(query, key.shape[2]):
        return _Learnt.apply(query, key, value, is_causal, scale, full)
    if not _torch_is_right(query, key, value, is_causal, scale, full):
        return None
    return _sdpa(query, key, value, mask, is_causal=is_causal, scale=scale)


class _Learnt(torch.autograd.Function):
    """What autograd.py does, for gradients of query, key and value on the native kernel alone, in half its time."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float, mask: Tensor | None
    ) -> Tensor:
        out, lse = attend_plainly(query, key, value, is_causal, scale, mask)
        ctx.save_for_backward(query, key, value, mask, out, lse)
        ctx.options = (is_causal, scale)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, out, lse = ctx.saved_tensors
        is_causal, scale = ctx.options
        if not torch.is_grad_enabled():
            return *gradients_plainly(query, key, value, is_causal, scale, mask, out, lse, grad_out), None, None, None
        # A graph of this pass is wanted, which will refuse to be differentiated.
        allow, bias = (mask, None) if mask is not None and mask.dtype is torch.bool else (None, mask)
        options = (scale, is_causal, None, 0.0, 0, (None, None), 0)
        found = backward(options, "native", grad_out, None, query, key, value, bias, None, None, allow, out, lse)
        return *found[:3], None, None, None


def _torch_is_right(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float, mask: Tensor | None
) -> bool:
    """Whether torch's function gives what ours promises: with an empty row it gives NaN or a mean (torch 2.13)."""
    if 0 in query.shape or key.shape[2] == 0 or not query.stride(-1) == key.stride(-1) == value.stride(-1) == 1:
        return False
    if is_causal and scale <= 0:  # as in torch_sdpa.py
        return False
    return mask is None or not leaves_a_row_nothing(mask)


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
    if query.is_neg() or key.is_neg() or value.is_neg():
        return False
    if not (query.is_cpu and key.is_cpu and value.is_cpu and query.dtype in _FLOATS):
        return False
    if not query.dtype is key.dtype is value.dtype:
        return False
    shape, shared = query.shape, key.shape
    if not (len(shape) == len(shared) == 4 and shared == value.shape):
        return False
    return shape[0] == shared[0] and shape[1] == shared[1] and shape[3] == shared[3] != 0


def _spread(mask: Tensor, query: Tensor, key: Tensor) -> Tensor | None:
    """The mask spread to (B, H, L, S), a view; None where it is not of the commonest kind."""
    if type(mask) is not Tensor or not mask.is_cpu or mask.is_neg() or not 2 <= mask.dim() <= 4:
        return None
    learns = mask.requires_grad and torch.is_grad_enabled()
    if learns or (mask.dtype is not torch.bool and mask.dtype is not query.dtype):
        return None
    batch, heads, length, _ = query.shape
    try:
        return mask.expand(batch, heads, length, key.shape[2])
    except RuntimeError:  # it does not fit, and the long way says how
        return None
