"""Fast path for plain tensors: at most a mask, no hooks, no transform, no torch function mode.

Describing a problem, checking it and choosing a kernel take 40 µs, more than a small attention does itself, and as much
again in the backward pass. Here the library reads the tensors itself. `match` in plan.py decides which calls come here.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from clearhead.kernels.autograd import backward
from clearhead.kernels.native import cpu_targets
from clearhead.kernels.native.call import PIECES
from clearhead.kernels.native.cpu_targets import index_of
from clearhead.kernels.native.library import library, reads_tensors
from clearhead.kernels.plan import (
    NATIVE,
    NATIVE_GRADIENTS,
    NO_MATCH,
    TORCH_FASTER,
    UNREADABLE,
    match,
    takes_fused,
)
from clearhead.kernels.precision import lse_dtype, wide
from clearhead.kernels.problem import carries_tangent, contiguous_rows, has_own_memory
from clearhead.spec import Attention, four_axes

# The operator behind F.scaled_dot_product_attention, which gives the lse and makes no L×S tensor. torch.ops takes 4 µs
# longer to call it.
_flash = torch._scaled_dot_product_flash_attention_for_cpu
_sdpa = F.scaled_dot_product_attention
# Bound once, because a look-up by name takes 0.2 µs behind a backward pass.
_compiler, _is_dynamo_compiling = torch.compiler, torch.compiler.is_dynamo_compiling
if reads_tensors:
    library.register_attention(_flash, torch.empty_like)
    _attend = library.attend
else:

    def _attend(*_call: Any) -> int:
        return NO_MATCH


def attend(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float | None, mask: Tensor | None = None,
    grouped: bool = False,
) -> Tensor | None:  # fmt: skip
    """Output (B, H, L, E) of attention with at most a mask; None for a call that the fast path does not take.

    Example:
        >>> q = torch.ones(1, 2, 3, 5)
        >>> out = attend(q, q, q, False, None)
        >>> out is None or torch.equal(out, q)
        True
        >>> attend(q.double(), q, q, False, None) is None
        True
    """
    # The library makes the decision of `match`, and calls torch's function where that is faster. Neither Dynamo nor a
    # tangent is seen from there.
    if (
        _is_dynamo_compiling() or _compiler._is_compiling_flag or forward_ad._current_level >= 0
    ) and match(query, key, value, is_causal, scale, mask, grouped) == NO_MATCH:  # fmt: skip
        return None
    result: Any = _attend(query, key, value, is_causal, scale, mask, grouped)
    if type(result) is not int:
        return cast(Tensor, result)
    if result == NATIVE:
        return native_forward(query, key, value, is_causal, scale, mask, grouped)
    if result == NATIVE_GRADIENTS:
        return native_with_gradients(query, key, value, is_causal, scale, mask, grouped)
    if result == UNREADABLE and takes_fused(query, key, value, is_causal, scale, mask, grouped):
        return _sdpa(query, key, value, is_causal=bool(is_causal), scale=scale, enable_gqa=grouped)
    return None


def attend_with_lse(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float | None, mask: Tensor | None = None,
    grouped: bool = False,
) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    """Output and lse (B, H, L), float32 or wider; None where `attend` gives None, and where a gradient is needed.

    Example:
        >>> q = torch.ones(1, 2, 3, 5)
        >>> result = attend_with_lse(q, q, q, False, 1.0)
        >>> result is None or torch.equal(result[1], 5 + torch.full((1, 2, 3), 3.0).log())
        True
    """
    matched = match(query, key, value, is_causal, scale, mask, grouped, True)
    if matched == NATIVE:
        lse = query.new_empty(query.shape[:-1], dtype=wide(query.dtype))
        return native_forward(query, key, value, is_causal, scale, mask, grouped, lse), lse
    if matched == TORCH_FASTER:
        out, lse = _flash(query, key, value, 0.0, bool(is_causal), attn_mask=None, scale=scale)
        return out, lse.to(wide(query.dtype))
    return None


def native_forward(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float | None, mask: Tensor | None = None,
    grouped: bool = False, lse: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Output (B, H, L, E), and into `lse`, (B, H, L), float32 or float64, where it is given."""
    width, value_width = query.shape[-1], value.shape[-1]
    out = torch.empty_like(query)  # laid out as the query is, as far as it fills its memory
    if value_width != width or out.stride(-1) != 1:  # of windows that overlap another axis may come last
        out = query.new_empty(*query.shape[:-1], value_width)
    if scale is None:
        scale = width**-0.5
    target: Any = cpu_targets.chosen_for(cpu_targets.forced.get(), query.dtype)[0]  # index_of, without its call
    try:  # float32_pieces, without its call
        pieces = PIECES[torch._C._get_float32_matmul_precision()] if query.dtype is torch.float32 else 0
    except RuntimeError:
        pieces = 0
    threads = torch.get_num_threads()
    library.fast_forward(
        target.index, threads, query, key, value, mask, grouped, bool(is_causal), scale, out, lse, pieces
    )
    return out


def torch_flash(query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float | None) -> Tensor:
    """Output (B, H, L, E) of the operator behind torch's function, which gives gradients, and makes no L×S tensor."""
    return _flash(query, key, value, 0.0, bool(is_causal), attn_mask=None, scale=scale)[0]


class _Attention(torch.autograd.Function):
    """As in autograd.py, for gradients of query, key and value on the native kernel alone, in half its time."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, grouped: bool, is_causal: bool,
        scale: float,
    ) -> Tensor:  # fmt: skip
        lse = query.new_empty(query.shape[:-1], dtype=lse_dtype(query.dtype))
        out = native_forward(query, key, value, is_causal, scale, mask, grouped, lse)
        ctx.save_for_backward(query, key, value, mask, out, lse)
        ctx.options = (grouped, is_causal, scale)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, out, lse = ctx.saved_tensors
        grouped, is_causal, scale = ctx.options
        if not (torch.is_grad_enabled() or carries_tangent(grad_out)) and has_own_memory(grad_out):
            grads = query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)
            library.fast_backward(
                index_of(query.dtype), torch.get_num_threads(), query, key, value, mask, grouped, is_causal, scale,
                contiguous_rows(out), lse, contiguous_rows(grad_out), *grads,
            )  # fmt: skip
            return *grads, None, None, None, None
        # A graph of this pass is wanted, or its derivative along a tangent: it refuses to be differentiated.
        mask = None if mask is None else four_axes(mask)
        allow, bias = (mask, None) if mask is not None and mask.dtype is torch.bool else (None, mask)
        attention = Attention.of(scale, is_causal=is_causal, allow=allow, bias=bias)
        inputs = [four_axes(tensor) for tensor in (query, key, value)]
        grad_out = grad_out if grad_out.dim() == 4 else four_axes(grad_out)  # torch.vmap cannot index with ()
        given = grad_out, None, four_axes(out), lse.view(inputs[0].shape[:-1])
        first = backward(attention.without_tensors(), "native", *given, *inputs, *attention.tensor_list())
        shaped = (cast(Tensor, x).reshape(like.shape) for x, like in zip(first, (query, key, value), strict=False))
        return *shaped, None, None, None, None


# Function.apply also handles functorch, which `match` excludes, for 9 µs.
_apply: Any = super(torch.autograd.Function, _Attention).apply


def native_with_gradients(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float | None, mask: Tensor | None = None,
    grouped: bool = False,
) -> Tensor:  # fmt: skip
    """Output (B, H, L, E), differentiable to query, key and value."""
    return _apply(
        query, key, value, mask, grouped, bool(is_causal), query.shape[-1] ** -0.5 if scale is None else scale
    )
