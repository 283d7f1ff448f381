"""Calls of torch's scaled_dot_product_attention and their options, for the tests of `clearhead.accelerate`."""

import pytest
import torch

import clearhead
from clearhead.kernels.native.cpu_targets import current, has_tiles, targets

needs_native = pytest.mark.skipif(not clearhead.kernels.targets(), reason="the native library was not built here")
B, H, L, S, D = 2, 6, 13, 17, 11
OURS = {"forward": 1, "backward": 1, "module": 0, "torch": 0}

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


FORCED, UNFORCED = "forced", "unforced"


@pytest.fixture(autouse=True, params=[FORCED, UNFORCED])
def own_kernels(request, costs):
    """Every call that our kernels can compute runs on them: through Python where a target is forced, else from C++."""
    if request.param == FORCED:
        best, _ = current()
        with clearhead.kernels.target(best.name):
            yield
    else:
        costs(0.0, 900.0)
        yield


not_on_tiles = pytest.mark.skipif(
    targets() and has_tiles(current()[0].name),
    reason="on tile registers, float32 goes through Python, which knows its precision",
)
through_python = pytest.mark.parametrize("own_kernels", [FORCED], indirect=True)
without_python = pytest.mark.parametrize("own_kernels", [UNFORCED], indirect=True)


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
