"""Torch's fused operators on CUDA, flash, efficient and cuDNN, called directly, because only they return the lse."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend

from clearhead.kernels.portable.operator_masks import added_mask, empty_rows
from clearhead.kernels.problem import Gradients, Problem, Result, carries_tangent
from clearhead.spec import EVERYWHERE, four_axes

DEVICES = ("cuda",)  # also the name of AMD's
FUSED = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION)
_BY_NUMBER = {backend.value: backend for backend in FUSED}
_flash = torch.ops.aten._scaled_dot_product_flash_attention.default
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_backward.default
_efficient = torch.ops.aten._scaled_dot_product_efficient_attention.default
_efficient_backward = torch.ops.aten._scaled_dot_product_efficient_attention_backward.default
_cudnn = torch.ops.aten._scaled_dot_product_cudnn_attention.default
_cudnn_backward = torch.ops.aten._scaled_dot_product_cudnn_attention_backward.default
_FLASH_WIDTH = 8  # the flash operator needs a multiple of this as head_dim
_MASK_ROW = 8  # the efficient operator needs a multiple of this as the row stride of a mask
_LSE_ROW = 32  # the same for the lse


def backend(problem: Problem, learns: bool | None = None) -> SDPBackend | None:
    """Return the fused operator that torch's function would use, if it computes exactly this problem; else None.

    Respects `torch.backends.cuda.enable_flash_sdp` and `torch.nn.attention.sdpa_kernel`, as torch's function does.

    Args:
        learns: whether gradients are needed; None = whether autograd records them.
    """
    if problem.query.device.type not in DEVICES:
        return None
    bias_learns = problem.attention.learning() and (problem.learns() if learns is None else learns)
    if not is_exact(problem) or (bias_learns and not _is_whole(problem)):
        return None
    query, key, value, attention = problem.query, problem.key, problem.value, problem.attention
    mask = attention.allow if attention.allow is not None else attention.bias
    mask = None if mask is None else four_axes(mask).expand(problem.shape)
    chosen = operator_for(query, key, value, mask, attention.is_causal, attention.scale, problem.group > 1)
    # Only this operator computes the gradient of a bias, and only with the full shape.
    return None if bias_learns and chosen is not SDPBackend.EFFICIENT_ATTENTION else chosen


def _is_whole(problem: Problem) -> bool:
    bias = problem.attention.bias
    return bias is not None and bias.shape == problem.shape


def is_exact(problem: Problem) -> bool:
    """Whether a fused operator computes exactly this problem, if torch uses one."""
    query, key, value, attention = problem.query, problem.key, problem.value, problem.attention
    if attention.dropout_p or attention.softcap is not None or 0 in (*query.shape, *key.shape, value.shape[-1]):
        return False
    tensors = attention.tensors()
    if len(tensors) > 1 or not tensors.keys() <= {"allow", "bias"}:
        return False
    if attention.scale <= 0 or (attention.band != EVERYWHERE and (not attention.is_causal or tensors)):
        return False  # the operators take the maximum, and mask, before they multiply by the scale
    bias = attention.bias
    if bias is not None and bias.dtype != query.dtype:
        return False
    return not carries_tangent(query, key, value, bias)


def takes(query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float | None, grouped: bool) -> bool:
    """Return whether `F.scaled_dot_product_attention` computes a call without a mask exactly, by a fused operator.

    False for anything but plain (B, H, L, D) tensors that fit each other: `attention` validates those calls.
    """
    tensors = (query, key, value)
    if any(type(t) not in (Tensor, torch.nn.Parameter) or t.dim() != 4 or 0 in t.shape for t in tensors):
        return False
    (batch, heads, _, width), (key_batch, kv_heads, _, key_width) = query.shape, key.shape
    fits = (batch, width) == (key_batch, key_width) and value.shape[:3] == key.shape[:3]
    if not fits or (heads % kv_heads if grouped else heads != kv_heads) or carries_tangent(*tensors):
        return False
    if any((t.dtype, t.device) != (query.dtype, query.device) for t in tensors) or (scale is not None and scale <= 0):
        return False
    scale = width**-0.5 if scale is None else scale
    return operator_for(query, key, value, None, is_causal, scale, grouped and heads != kv_heads) is not None


def operator_for(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, is_causal: bool, scale: float, grouped: bool
) -> SDPBackend | None:
    """Return the fused operator that `F.scaled_dot_product_attention` would use; None if it would use none."""
    number = torch._fused_sdp_choice(query, key, value, mask, 0.0, is_causal, scale=scale, enable_gqa=grouped)
    return _BY_NUMBER.get(number)


def forward(problem: Problem, chosen: SDPBackend) -> Result:
    """Compute output and lse by one of the operators."""
    query, key, value, attention = problem.query, problem.key, problem.value, problem.attention
    scale, is_causal = attention.scale, attention.is_causal
    if chosen is SDPBackend.FLASH_ATTENTION:
        wide = _pad(query, key, value)
        out, lse = _flash(*wide, 0.0, is_causal, scale=scale)[:2]
        return Result(out[..., : value.shape[-1]], lse)
    mask = _mask(problem)
    if chosen is SDPBackend.EFFICIENT_ATTENTION:
        out, lse = _efficient(query, key, value, mask, True, 0.0, is_causal, scale=scale)[:2]
        result = Result(out, lse[..., : query.shape[2]])
    else:
        out, lse = _cudnn(query, key, value, mask, True, 0.0, is_causal, False, scale=scale)[:2]
        result = Result(out, lse.view(query.shape[:3]))
    empty = empty_rows(problem)
    if empty is None:
        return result
    return Result(result.out.masked_fill(empty[..., None], 0), result.lse.masked_fill(empty, -torch.inf))


def backward(problem: Problem, result: Result, grad_out: Tensor, chosen: SDPBackend) -> Gradients:
    """Compute the gradients by one of the operators, which may differ from the one that ran forward."""
    query, key, value, attention = problem.query, problem.key, problem.value, problem.attention
    out, lse = result.out, result.lse
    empty = empty_rows(problem)
    if empty is not None:
        grad_out, lse = grad_out.masked_fill(empty[..., None], 0), lse.masked_fill(empty, 0)
    scale, is_causal, sizes = attention.scale, attention.is_causal, (query.shape[2], key.shape[2])
    seed = torch.empty((), dtype=torch.int64, device=query.device)  # not read without dropout
    if chosen is SDPBackend.FLASH_ATTENTION:
        wide, (out, grad_out) = _pad(query, key, value), _pad(out, grad_out)
        state = torch.empty(2, dtype=torch.uint64, device=query.device)
        grads = _flash_backward(
            grad_out, *wide, out, lse.contiguous(), None, None, *sizes, 0.0, is_causal, state, seed, scale=scale
        )
        width, value_width = query.shape[-1], value.shape[-1]
        return Gradients(grads[0][..., :width], grads[1][..., :width], grads[2][..., :value_width])
    mask = _mask(problem)
    if chosen is SDPBackend.EFFICIENT_ATTENTION:
        needed = [True, True, True, "bias" in attention.learning()]
        grad_query, grad_key, grad_value, grad_bias = _efficient_backward(
            grad_out, query, key, value, mask, out, _pad_rows(lse), seed, seed, 0.0, needed, is_causal, scale=scale
        )
        return Gradients(grad_query, grad_key, grad_value, {"bias": grad_bias} if needed[3] else {})
    grads = _cudnn_backward(
        grad_out, query, key, value, out, lse.contiguous()[..., None], seed, seed, mask, None, None, *sizes, 0.0,
        is_causal, scale=scale,
    )  # fmt: skip
    return Gradients(*grads)


def _pad(*tensors: Tensor) -> list[Tensor]:
    """Pad rows with zeros to a width that the flash operator supports."""
    return [F.pad(tensor, (0, -tensor.shape[-1] % _FLASH_WIDTH)) if tensor.shape[-1] % _FLASH_WIDTH else tensor
            for tensor in tensors]  # fmt: skip


def _pad_rows(lse: Tensor) -> Tensor:
    """Return the lse with the padded rows that the efficient operator expects; a `Result` holds only the first L."""
    batch, heads, length = lse.shape
    step = -(-length // _LSE_ROW) * _LSE_ROW
    if lse.stride() == (heads * step, step, 1):
        return lse.as_strided((batch, heads, step), lse.stride())
    return F.pad(lse, (0, step - length), value=torch.inf)


def _mask(problem: Problem) -> Tensor | None:
    """Return the added mask with all axes expanded, (B, H, L, S), and with the aligned rows that the operators need."""
    mask = added_mask(problem)
    if mask is None:
        return None
    keys = problem.shape[3]
    mask = mask.expand(-1, -1, -1, keys)
    if mask.stride(-1) != 1 or any(stride % _MASK_ROW for stride in mask.stride()[:-1]):
        mask = F.pad(mask, (0, -keys % _MASK_ROW)).contiguous()[..., :keys]
    return mask.expand(problem.shape)
