"""The short way to a kernel, for the commonest calls: a mask at most, and nobody watching.

Describing a problem, checking it and choosing a kernel take 40 µs, more than a small attention does itself, and as much
again on the way back. Here the library looks at the tensors by itself.
"""

from typing import Any

import torch
from torch import Tensor

from clearhead.kernels.autograd import backward
from clearhead.kernels.native import Plain, attend_plainly, gradients_plainly, how_plain
from clearhead.kernels.places import lse_dtype, wide
from clearhead.kernels.problem import carries_tangent, has_own_memory
from clearhead.kernels.targets import current

# The function behind F.scaled_dot_product_attention, whose name some programs give to ours.
_sdpa = torch._C._nn.scaled_dot_product_attention


def attend(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float | None, mask: Tensor | None = None,
    grouped: bool = False,
) -> Tensor | None:  # fmt: skip
    """Output (B, H, L, E) of plain attention, or None where the call has to go the long way.

    The long way is for all but the plain tensors that `native.how_plain` names, for masks that learn, and wherever
    torch records, transforms or watches what is called.

    Example:
        >>> q = torch.ones(1, 2, 3, 5)
        >>> out = attend(q, q, q, False, None)
        >>> out is None or torch.equal(out, q)
        True
        >>> attend(q.double(), q, q, False, None) is None
        True
    """
    plain = _how(query, key, value, is_causal, scale, mask, grouped)
    if plain == Plain.SPECIAL:
        return None
    if scale is None:
        scale = query.shape[-1] ** -0.5
    if not (torch.is_grad_enabled() and _any_learns(query, key, value, mask)):
        return attend_plainly(query, key, value, mask, grouped, bool(is_causal), scale, None)
    if plain != Plain.PLAIN or (mask is not None and mask.requires_grad):
        return None
    if mask is None and query.shape[-2] == 1 == key.shape[-2] and not (is_causal and scale <= 0):
        # One query, one key: what Python costs on the way back is all there is. Torch's function has none of it, and
        # forgets a causal mask by a scale that is not positive (torch 2.13).
        return _sdpa(query, key, value, is_causal=is_causal, scale=scale, enable_gqa=grouped)
    return _learn(query, key, value, mask, grouped, bool(is_causal), scale)


def attend_with_lse(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float | None, mask: Tensor | None = None,
    grouped: bool = False,
) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    """What `attend` gives, and the lse (B, H, L), float32 or wider; None too where a gradient is wanted.

    Example:
        >>> q = torch.ones(1, 2, 3, 5)
        >>> found = attend_with_lse(q, q, q, False, 1.0)
        >>> found is None or torch.equal(found[1], 5 + torch.full((1, 2, 3), 3.0).log())
        True
    """
    if _how(query, key, value, is_causal, scale, mask, grouped) == Plain.SPECIAL:
        return None
    if torch.is_grad_enabled() and _any_learns(query, key, value, mask):
        return None
    if scale is None:
        scale = query.shape[-1] ** -0.5
    lse = query.new_empty(query.shape[:-1], dtype=wide(query.dtype))
    return attend_plainly(query, key, value, mask, grouped, bool(is_causal), scale, lse), lse


def _how(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float | None, mask: Tensor | None, grouped: bool
) -> int:
    """How the short way may compute a call: a Plain."""
    if torch.compiler.is_compiling() or _is_watched() or not (scale is None or type(scale) is float):
        return Plain.SPECIAL
    plain = how_plain(query, key, value, mask, grouped)
    if plain == Plain.SPECIAL or (mask is not None and is_causal) or carries_tangent(query, key, value, mask):
        return Plain.SPECIAL
    return Plain.SPECIAL if current(query.dtype)[0] is None else plain


def _any_learns(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    learns = query.requires_grad or key.requires_grad or value.requires_grad
    return learns or (mask is not None and mask.requires_grad)


class _Learnt(torch.autograd.Function):
    """What autograd.py does, for gradients of query, key and value on the native kernel alone, in half its time."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, grouped: bool, is_causal: bool,
        scale: float,
    ) -> Tensor:  # fmt: skip
        lse = query.new_empty(query.shape[:-1], dtype=lse_dtype(query.dtype))
        out = attend_plainly(query, key, value, mask, grouped, is_causal, scale, lse)
        ctx.save_for_backward(query, key, value, mask, out, lse)
        ctx.options = (grouped, is_causal, scale)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, out, lse = ctx.saved_tensors
        grouped, is_causal, scale = ctx.options
        if not (torch.is_grad_enabled() or carries_tangent(grad_out)) and has_own_memory(grad_out):
            found = gradients_plainly(query, key, value, mask, grouped, is_causal, scale, out, lse, grad_out)
            return *found, None, None, None, None
        # A graph of this pass is wanted, or its derivative along a tangent: it will refuse to be differentiated.
        allow, bias = (mask, None) if mask is not None and mask.dtype is torch.bool else (None, mask)
        options = (scale, is_causal, None, 0.0, 0, (None, None), 0)
        grads = backward(options, "native", grad_out, None, query, key, value, bias, None, None, allow, out, lse)
        return *grads[:3], None, None, None, None


# Function.apply looks after functorch as well, which is not there (`_is_watched`), for 9 µs.
_learn: Any = super(torch.autograd.Function, _Learnt).apply


def _is_watched() -> bool:
    """Whether a mode, a transform, a tracer or autocast has to see the call."""
    return bool(
        torch._C._len_torch_function_stack()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._is_tracing()
        or torch.is_autocast_enabled("cpu")
    )
