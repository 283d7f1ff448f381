"""Kernel "torch": torch's own flash attention, and plain blocked torch for what it cannot say."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from clearhead.kernels import blockwise
from clearhead.kernels.capability import Capability
from clearhead.kernels.places import wide
from clearhead.kernels.problem import Gradients, Problem, Result, carries_tangent

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


class _Asked(threading.local):
    depth = 0


_asked = _Asked()


def is_asked() -> bool:
    """Whether this thread is inside `torchs_own`."""
    return _asked.depth > 0


@contextmanager
def torchs_own() -> Iterator[None]:
    """Run torch's operators on torch's own kernels in this thread, also while `clearhead.accelerate` is on."""
    _asked.depth += 1
    try:
        yield
    finally:
        _asked.depth -= 1


class TorchSdpa:
    """Computes any problem in the tensors' own dtype, with float32 sums for the 16-bit ones.

    The CPU flash operator behind `F.scaled_dot_product_attention` is called directly, because only it gives the lse.
    """

    name = "torch"
    capabilities = Capability.FORWARD | Capability.GRADIENTS
    devices: tuple[str, ...] = ()
    has_targets = False

    def unavailable(self) -> str | None:
        return None

    def describe(self) -> str:
        return f"torch {torch.__version__}: its flash attention on the CPU, blocked torch elsewhere"

    def refuses(self, problem: Problem, capability: Capability = Capability.FORWARD) -> str | None:
        return None

    def forward(self, problem: Problem) -> Result:
        if not flash_can(problem):
            return blockwise.forward(problem, wide(problem.query.dtype))
        mask = _mask(problem)
        with torchs_own():
            out, lse = _flash(
                problem.query,
                problem.key,
                problem.value,
                0.0,
                problem.is_causal,
                attn_mask=mask,
                scale=problem.scale,
            )
        # The operator answers NaN or a mean, and lse 0, for a row that may attend nothing (seen in torch 2.13).
        empty = _empty_rows(problem, mask)
        if empty is not None:
            out, lse = out.masked_fill(empty[..., None], 0), lse.masked_fill(empty, -torch.inf)
        return Result(out, lse)

    def backward(self, problem: Problem, result: Result, grad_out: Tensor, grad_lse: Tensor | None) -> Gradients:
        bias_learns = problem.bias is not None and problem.bias.requires_grad
        if grad_lse is not None or bias_learns or not flash_can(problem):
            return blockwise.backward(problem, result, grad_out, grad_lse, wide(problem.query.dtype))
        mask = _mask(problem)
        empty = _empty_rows(problem, mask)
        out, lse = result.out, result.lse.to(wide(problem.query.dtype))
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
                problem.is_causal,
                attn_mask=mask,
                scale=problem.scale,
            )
        return Gradients(*grads)


def flash_can(problem: Problem) -> bool:
    """Whether torch's CPU flash operator says exactly this problem, without an L×S tensor made for it."""
    query, key, value = problem.query, problem.key, problem.value
    if query.device.type != "cpu" or problem.dropout_p or problem.softcap is not None or problem.sinks is not None:
        return False
    if problem.reach != (None, None) or problem.alibi is not None:
        return False
    if problem.is_causal and problem.scale <= 0:  # it multiplies the masked -inf by the scale (seen in torch 2.13)
        return False
    if query.shape[-1] != value.shape[-1] or 0 in (*query.shape, *key.shape):
        return False
    if not flash_reads(query, key, value):
        return False
    if carries_tangent(query, key, value, problem.bias):
        return False
    if problem.allow is None and problem.bias is None:
        return True
    return not problem.is_causal and (problem.allow is None or problem.bias is None)


def flash_reads(*tensors: Tensor) -> bool:
    """Whether the operator meets each row, (B, H, L, D), in one piece, and writes its own outputs so too.

    It takes their layout from the inputs: where another axis has stride 1 as well, as in windows that overlap, it may
    lay that one innermost, and then writes past it (seen in torch 2.13).

    >>> x = torch.arange(7.0)
    >>> flash_reads(x.view(1, 1, 1, 7)), flash_reads(x.unfold(0, 5, 1)[None, None])
    (True, False)
    """
    return all(t.stride(-1) == 1 and (1 not in t.stride()[:-1] or not _ties(t)) for t in tensors)


def _ties(tensor: Tensor) -> bool:
    return tensor.shape[-1] > 1 and torch.empty_like(tensor, device="meta").stride(-1) != 1


def _mask(problem: Problem) -> Tensor | None:
    """The mask as the operator wants it: added to the logits, 4 axes, as small as the caller's.

    Float32 where it is of another dtype than the query: narrower, -1e5 would be -inf, and a hundred have no digits.
    """
    if problem.allow is not None:
        allow = problem.allow
        mask = torch.zeros(allow.shape, dtype=problem.query.dtype, device=allow.device)
        mask.masked_fill_(~allow, -torch.inf)
    elif problem.bias is not None:
        own, wanted = problem.bias.detach(), problem.query.dtype
        mask = own if own.dtype == wanted else own.to(wide(wanted))
    else:
        return None
    return mask.view((1,) * (4 - mask.dim()) + tuple(mask.shape))


def _empty_rows(problem: Problem, mask: Tensor | None) -> Tensor | None:
    """bool (B, H, L), True where the mask leaves a row nothing; None if there is no mask."""
    if problem.allow is not None:
        blocked = ~problem.allow.any(-1)
    elif mask is not None:
        blocked = (mask.to(wide(mask.dtype)) < blockwise.NOTHING).all(-1)  # float16 has no such number
    else:
        return None
    return blocked.broadcast_to(problem.query.shape[:3])
