"""Kernel "torch": torch's fused attention, and blockwise torch for problems it cannot compute."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from clearhead.kernels.capability import Capability
from clearhead.kernels.native.library import cpu_supports, library
from clearhead.kernels.portable import blockwise, torch_cuda
from clearhead.kernels.portable.operator_masks import added_mask, empty_rows
from clearhead.kernels.precision import wide
from clearhead.kernels.problem import Gradients, Problem, Result, carries_tangent, contiguous_rows
from clearhead.spec import EVERYWHERE

_flash = torch._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


class _State(threading.local):
    depth = 0


_state = _State()


def is_torchs_own() -> bool:
    """Return whether this thread is inside `torchs_own`."""
    return _state.depth > 0


@contextmanager
def torchs_own() -> Iterator[None]:
    """Run torch's operators on torch's own kernels in this thread, even while `clearhead.accelerate` is on."""
    _enter(1)
    try:
        yield
    finally:
        _enter(-1)


def _enter(change: int) -> None:
    _state.depth += change
    if library is not None:
        library.be_torchs_own(is_torchs_own())


class TorchSdpa:
    """Computes any problem in the tensors' own dtype, with float32 sums for 16-bit dtypes.

    The operators behind `F.scaled_dot_product_attention` are called directly, because only they return the lse: the
    CPU's flash operator here, those of CUDA in `torch_cuda.py`.
    """

    name = "torch"
    capabilities = Capability.FORWARD | Capability.GRADIENTS
    devices: tuple[str, ...] = ()
    has_targets = False

    def unavailable(self) -> str | None:
        return None

    def describe(self) -> str:
        return f"torch {torch.__version__}: its fused attention on the CPU and CUDA, blockwise torch elsewhere"

    def refuses(self, problem: Problem, capability: Capability = Capability.FORWARD) -> str | None:
        return None

    def forward(self, problem: Problem) -> Result:
        fused = torch_cuda.backend(problem)
        if fused is not None:
            return torch_cuda.forward(problem, fused)
        if not flash_can(problem):
            return blockwise.forward(problem, wide(problem.query.dtype))
        mask = added_mask(problem)
        with torchs_own():
            out, lse = _flash(
                problem.query,
                problem.key,
                problem.value,
                0.0,
                problem.attention.is_causal,
                attn_mask=mask,
                scale=problem.attention.scale,
            )
        # For an empty row the operator returns NaN or the mean of all values, and lse 0 (torch 2.13).
        empty = empty_rows(problem)
        if empty is not None:
            out, lse = out.masked_fill(empty[..., None], 0), lse.masked_fill(empty, -torch.inf)
        return Result(out, lse)

    def takes_some_keys(self, problem: Problem) -> bool:
        return False

    def backward(self, problem: Problem, result: Result, grad_out: Tensor, grad_lse: Tensor | None) -> Gradients:
        fused = None if grad_lse is not None else torch_cuda.backend(problem, learns=True)
        if fused is not None:
            return torch_cuda.backward(problem, result, grad_out, fused)
        if grad_lse is not None or problem.attention.learning() or not flash_can(problem):
            return blockwise.backward(problem, result, grad_out, grad_lse, wide(problem.query.dtype))
        mask = added_mask(problem)
        empty = empty_rows(problem)
        # The operator reads contiguous rows of the output; a hook on saved tensors may change its strides (torch 2.13).
        out, lse = contiguous_rows(result.out), result.lse.to(wide(problem.query.dtype))
        if empty is not None:
            grad_out, lse = grad_out.masked_fill(empty[..., None], 0), lse.masked_fill(empty, 0)
        with torchs_own():
            grads = _flash_backward(
                grad_out,
                problem.query,
                problem.key,
                problem.value,
                out,
                lse,
                0.0,
                problem.attention.is_causal,
                attn_mask=mask,
                scale=problem.attention.scale,
            )
        return Gradients(*grads)


def flash_can(problem: Problem) -> bool:
    """Return whether torch's CPU flash operator computes exactly this problem, without an extra L×S tensor."""
    query, key, value, attention = problem.query, problem.key, problem.value, problem.attention
    if query.device.type != "cpu" or attention.dropout_p or attention.softcap is not None:
        return False
    tensors = attention.tensors()
    if len(tensors) > 1 or not tensors.keys() <= {"allow", "bias"}:
        return False
    if attention.band != EVERYWHERE and (not attention.is_causal or tensors or attention.scale <= 0):
        return False  # under a causal mask it multiplies the masked -inf by the scale (torch 2.13)
    if query.shape[-1] != value.shape[-1] or 0 in (*query.shape, *key.shape):
        return False
    return (
        flash_runs(query.dtype)
        and flash_reads(query, key, value)
        and not carries_tangent(query, key, value, attention.bias)
    )


@cache
def flash_runs(dtype: torch.dtype) -> bool:
    """Return whether the operator can compute a dtype with torch's current settings.

    If oneDNN may use AVX-512 instructions for bfloat16 and ATEN_CPU_CAPABILITY keeps torch from them, the operator
    raises "pack_vnni2 is only supported when avx512 is supported" (torch 2.13).

    >>> flash_runs(torch.float32)
    True
    """
    if dtype is not torch.bfloat16 or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return True
    # A CPU without AVX-512 has no such instructions, whatever oneDNN reports.
    return "AVX512" in torch.backends.cpu.get_cpu_capability() or not cpu_supports("avx512f")


def flash_reads(*tensors: Tensor) -> bool:
    """Return whether the rows of (B, H, L, D) tensors are contiguous, and those of the operator's outputs will be too.

    The operator derives the output's layout from the inputs. If another axis also has stride 1, as in overlapping
    windows, it may make that axis the innermost one and write past it (torch 2.13).

    >>> x = torch.arange(7.0)
    >>> flash_reads(x.view(1, 1, 1, 7)), flash_reads(x.unfold(0, 5, 1)[None, None])
    (True, False)
    """
    return all(t.stride(-1) == 1 and (1 not in t.stride()[:-1] or not _ties(t)) for t in tensors)


def _ties(tensor: Tensor) -> bool:
    return tensor.shape[-1] > 1 and torch.empty_like(tensor, device="meta").stride(-1) != 1
