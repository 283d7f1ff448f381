"""A linear layer in inference, on the microkernel of the native attention: the projections into heads and back.

The weights are read in place at each call. There is no packed copy that could become stale
(docs/decisions/0021-weights-are-read-where-they-lie.md).
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead.errors import KernelError
from clearhead.kernels.capability import WithLinear
from clearhead.kernels.measured import costs
from clearhead.kernels.measured.tasks import FEW_ROWS, LINEAR, LINEAR_FEW
from clearhead.kernels.native.library import cpu_features
from clearhead.kernels.plan import needs_gradients
from clearhead.kernels.registry import with_linear


def project(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x weightᵀ + bias, as F.linear does.

    Our kernel computes it if that is faster (`linear_is_faster`) and no gradient is needed, else F.linear.

    Args:
        x: (..., I), any float dtype and device.
        weight: (O, I).
        bias: (O,), or None.
    Returns:
        (..., O), contiguous if our kernel computed it.
    Memory: the output; per thread the weights of 128 outputs in float32, and a block of x.

    Example:
        >>> project(torch.ones(2, 3, 5), torch.ones(7, 5)).shape
        torch.Size([2, 3, 7])
    """
    return (
        natively(x, weight, bias) if x.dim() >= 2 and linear_is_faster(x, weight, bias) else F.linear(x, weight, bias)
    )


def natively(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute the layer on our kernel, which must not refuse it."""
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
    """Compute x weightᵀ + bias in the layout that attention reads: the rows of each head are adjacent.

    Args:
        x: (B, L, I), or (L, B, I) without `batch_first`.
        weight: (H·D, I), D being `head_dim`.
        bias: (H·D,), or None.
    Returns:
        (B, H, L, D): contiguous if our kernel computed it, else a view of F.linear's output.

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
    """Return whether a kernel of ours can compute the layer and is faster than F.linear (bench/LOG.md).

    Without costs from `clearhead tune`, these rules apply. On a CPU with instructions for 16-bit products torch's
    library uses them and is faster; on others it computes 16-bit numbers one by one. For a single row of a small layer,
    the dispatch takes longer than the layer.
    """
    dtype = x.dtype
    if dtype not in _LEAST_ROWS or torch.is_autocast_enabled("cpu") or needs_gradients(x, weight, bias):
        return False
    if not _pays(x, weight):
        return False
    kernel = with_linear()
    return kernel is not None and kernel.refuses_linear(x, weight, bias) is None


def _pays(x: Tensor, weight: Tensor) -> bool:
    """Return whether our kernel is faster than F.linear. Asked first: what a kernel refuses takes 4 µs to find out."""
    rows = x.numel() // max(1, x.shape[-1])
    measured = (costs.of(LINEAR_FEW, x.dtype) if rows <= FEW_ROWS else None) or costs.of(LINEAR, x.dtype)
    if measured is not None:
        part = x.numel() * len(weight) / torch.get_num_threads()
        return measured.ours.at(0, part) <= measured.torchs.at(0, part)
    if rows < _LEAST_ROWS[x.dtype] or (rows == 1 and weight.numel() < _LEAST_WEIGHTS):
        return False
    return not _torch_multiplies(x.dtype)


_LEAST_ROWS = {torch.float32: 1, torch.bfloat16: 1, torch.float16: 4}
_LEAST_WEIGHTS = 1 << 16  # the smallest layer worth dispatching for a single row
_BFLOAT16_PRODUCTS = {"avx512bf16", "amx-bf16"}


@cache
def _torch_multiplies(dtype: torch.dtype) -> bool:
    """Return whether torch's library has instructions for products of this 16-bit dtype on this CPU.

    For bfloat16 oneDNN says yes on any CPU with AVX-512. On one without products of bfloat16 it then takes three times
    as long as in float32 (Intel Skylake: bench/LOG.md).
    """
    if dtype is torch.bfloat16:
        emulated = "avx512f" in cpu_features() and cpu_features().isdisjoint(_BFLOAT16_PRODUCTS)
        return not emulated and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is torch.float16 and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
