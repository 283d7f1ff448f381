"""Calls of torch's scaled_dot_product_attention and their options, for the tests of `clearhead.accelerate`."""

import pytest
import torch

import clearhead
from clearhead.kernels.native.cpu_targets import current

needs_native = pytest.mark.skipif(not clearhead.kernels.targets(), reason="the native library was not built here")
B, H, L, S, D = 2, 6, 13, 17, 11

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def own_target():
    """The best target, forced: so that no measured cost, and no rule of this CPU, sends a call to torch's function."""
    best, _ = current()
    with clearhead.kernels.target(best.name):
        yield


def inputs(dtype=torch.float32, kv_heads=H, learn=True, length=L, keys=S, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (B, H, length, D), (B, kv_heads, keys, D), (B, kv_heads, keys, D)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_(learn) for shape in shapes]


def masks(kind, dtype):
    """Options of F.scaled_dot_product_attention, and the same for the reference."""
    generator = torch.Generator().manual_seed(1)
    if kind == "bool":
        allow = torch.rand(B, 1, L, S, generator=generator) > 0.4
        allow[0, 0, 5] = False  # a row that may attend nothing
        return {"attn_mask": allow}, {"allow": allow}
    if kind == "float":
        bias = torch.randn(L, S, generator=generator).to(dtype)
        return {"attn_mask": bias}, {"bias": bias}
    return ({"is_causal": True},) * 2 if kind == "causal" else ({}, {})


def with_gradients(function, tensors, upstream, **options):
    out = function(*tensors, **options)
    out = out[0] if isinstance(out, tuple) else out
    return out.detach(), *torch.autograd.grad(out, tensors, upstream.to(out.dtype).expand(out.shape))
