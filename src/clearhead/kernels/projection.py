"""A linear layer in inference, on the micro-kernel of the native attention: what projects into heads and out of them.

The weights are read where they are at each call. There is no packed copy of them that could go stale
(docs/decisions/0021-weights-are-read-where-they-lie.md).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead.errors import KernelError
from clearhead.kernels.capability import WithLinear
from clearhead.kernels.measured import costs
from clearhead.kernels.measured.tasks import LINEAR
from clearhead.kernels.plan import needs_gradients
from clearhead.kernels.registry import with_linear


def project(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x weightᵀ + bias, as F.linear does.

    Our kernel computes it where that is faster (`linear_is_faster`), F.linear elsewhere and wherever a gradient is
    needed.

    Args:
        x: (..., I), any float dtype and device.
        weight: (O, I).
        bias: (O,), or None.
    Returns:
        (..., O), contiguous where our kernel made it.
    Memory: the output; per thread 128 outputs' weights in float32, and a block of x.

    Example:
        >>> project(torch.ones(2, 3, 5), torch.ones(7, 5)).shape
        torch.Size([2, 3, 7])
    """
    return (
        natively(x, weight, bias) if x.dim() >= 2 and linear_is_faster(x, weight, bias) else F.linear(x, weight, bias)
    )


def natively(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same on our kernel, which does not refuse it."""
    rows = x.reshape(-1, x.shape[-1])
    out = x.new_empty(len(rows), len(weight))
    _kernel().linear(rows, weight, bias, out, (0, 0, len(weight), 1), len(rows))
    return out.view(*x.shape[:-1], len(weight))


def _kernel() -> WithLinear:
    kernel = with_linear()
    if kernel is None:
        raise KernelError("no kernel on this machine computes linear layers. Use torch.nn.functional.linear.")
    return kernel


def project_to_heads(x: Tensor, weight: Tensor, bias: Tensor | None, head_dim: int, batch_first: bool) -> Tensor:
    """The same, laid out as attention reads it: each head's rows together.

    Args:
        x: (B, L, I), or (L, B, I) where not `batch_first`.
        weight: (H·D, I), D being `head_dim`.
        bias: (H·D,), or None.
    Returns:
        (B, H, L, D): contiguous where our kernel made it, else a view of F.linear's output.

    Example:
        >>> project_to_heads(torch.ones(2, 3, 5), torch.ones(8, 5), None, 4, batch_first=True).shape
        torch.Size([2, 2, 3, 4])
    """
    if not linear_is_faster(x, weight, bias):
        heads = F.linear(x, weight, bias).unflatten(-1, (-1, head_dim))
        return heads.transpose(1, 2) if batch_first else heads.permute(1, 2, 0, 3)
    outer, inner, inputs = x.shape
    batch, length = (outer, inner) if batch_first else (inner, outer)
    out = x.new_empty(batch, len(weight) // head_dim, length, head_dim)
    per_batch, per_head, per_row, _ = out.stride()
    strides = (per_batch, per_head, per_row, 1) if batch_first else (per_row, per_head, per_batch, 1)
    _kernel().linear(x.reshape(-1, inputs), weight, bias, out, strides, inner)
    return out


def linear_is_faster(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether a kernel of ours can compute the layer, and is faster than F.linear (bench/LOG.md).

    Without figures of `clearhead tune`: on a CPU whose instructions multiply 16-bit numbers torch's library uses them
    and is faster, on others it computes them number by number. For a single row of a small layer the question alone
    takes longer than the answer.
    """
    dtype = x.dtype
    if dtype not in _LEAST_ROWS or torch.is_autocast_enabled("cpu") or needs_gradients(x, weight, bias):
        return False
    kernel = with_linear()
    if kernel is None or kernel.refuses_linear(x, weight, bias) is not None:
        return False
    measured = costs.of(LINEAR, dtype)
    if measured is not None:
        part = x.numel() * len(weight) / torch.get_num_threads()
        return measured.ours.at(0, part) <= measured.torchs.at(0, part)
    rows = x.numel() // max(1, x.shape[-1])
    if rows < _LEAST_ROWS[dtype] or (rows == 1 and weight.numel() < _LEAST_WEIGHTS):
        return False
    return not _torch_multiplies(dtype)


_LEAST_ROWS = {torch.float32: 1, torch.bfloat16: 1, torch.float16: 4}
_LEAST_WEIGHTS = 1 << 16  # of a layer for a single row


def _torch_multiplies(dtype: torch.dtype) -> bool:
    """Whether torch's library has instructions for products of this 16-bit dtype on this CPU."""
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is torch.float16 and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
