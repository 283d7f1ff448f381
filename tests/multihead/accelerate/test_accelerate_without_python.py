"""`accelerate` runs our kernels from C++: the same results as torch's however tensors lie, and none of the calls enters Python."""

import sys
import threading

import pytest
import torch
import torch.nn.functional as F

import clearhead
import reference
from clearhead.kernels.native import cpu_targets
from clearhead.kernels.portable.torch_sdpa import torchs_own

from .attention_calls import DTYPES, OURS, D, inputs, needs_native, not_on_tiles, with_gradients

pytestmark = [
    needs_native,
    not_on_tiles,
    pytest.mark.usefixtures("without_python"),
    pytest.mark.skipif(sys.platform != "linux", reason="the C++ kernels are registered on Linux only"),
    pytest.mark.skipif(cpu_targets.is_forced(), reason="CLEARHEAD_KERNEL_TARGET sends every call through Python"),
]
FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default

# Ways in which query, key and value (B, H, L, D) lie in memory.
LAYOUTS = {
    "whole": lambda x: x.clone(),
    "rows of all heads together": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "cut from one projection": lambda x: torch.cat([x.transpose(1, 2)] * 3, -1)[..., D : 2 * D].transpose(1, 2),
    "heads outermost": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "one batch for all": lambda x: x[:1].expand_as(x),
    "every other row": lambda x: x.repeat_interleave(2, 2)[:, :, ::2],
    "one token and one head": lambda x: x[:, :1, :1],
}


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_our_kernels_run_without_python_however_tensors_lie(dtype, layout, is_causal, costs):
    costs(0.0, 900.0)
    tensors = [LAYOUTS[layout](tensor).requires_grad_() for tensor in inputs(dtype, learn=False)]
    upstream = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    stock = with_gradients(F.scaled_dot_product_attention, tensors, upstream, is_causal=is_causal)
    with clearhead.accelerate() as accelerated:
        same = with_gradients(F.scaled_dot_product_attention, tensors, upstream, is_causal=is_causal)
    assert accelerated.counts == OURS
    for mine, theirs in zip(same, stock, strict=True):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=64 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_output_is_laid_out_as_its_query(layout, costs):
    costs(0.0, 900.0)
    query, key, value = (LAYOUTS[layout](tensor) for tensor in inputs(learn=False))
    with clearhead.accelerate():
        out, _ = FLASH(query, key, value)
    assert out.stride() == torch.empty_like(query).stride()


def test_a_causal_mask_with_a_negative_scale_is_never_torchs(costs):
    """Torch's kernel then forgets the mask."""
    costs(900.0, 0.0)
    query, key, value = inputs(learn=False)
    with clearhead.accelerate() as accelerated:
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=-0.3)
    exact = reference.attention(query, key, value, is_causal=True, scale=-0.3)
    exact = exact[0] if isinstance(exact, tuple) else exact
    assert accelerated.counts["forward"] == 1
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=64 * torch.finfo(torch.float32).eps)


def test_torchs_own_kernels_run_in_the_thread_that_asks_for_them(costs):
    costs(0.0, 900.0)
    tensors = inputs(learn=False)
    stock = FLASH(*tensors)
    with clearhead.accelerate() as accelerated, torchs_own():
        with torchs_own():
            pass
        assert all(map(torch.equal, FLASH(*tensors), stock))
        others = threading.Thread(target=FLASH, args=tensors)
        others.start()
        others.join()
    assert accelerated.counts == {"forward": 1, "backward": 0, "module": 0, "torch": 1}
