"""Sequences that ranks do not divide, ranks without tokens, batches of none: all as on one process, in every dtype."""

import pytest
import torch
import torch.distributed as dist

import clearhead
from clearhead import distributed, masks

from .world import world

D, E = 5, 7
# (B, H, H_kv, L, S): with 4 ranks some hold one token and some none.
SHAPES = [(2, 12, 12, 13, 13), (1, 6, 2, 3, 3), (1, 4, 1, 7, 11), (0, 4, 4, 5, 5), (2, 12, 4, 1, 1), (1, 2, 2, 11, 3)]
CALLS = {
    "plain": lambda heads: {},
    "causal": lambda heads: {"is_causal": True},
    "soft cap and sinks": lambda heads: {"softcap": 2.0, "sinks": torch.linspace(-1, 1, heads)},
    "window": lambda heads: {"attn_mask": masks.causal() & masks.sliding_window(3)},
    "rule": lambda heads: {"attn_mask": masks.causal() | masks.prefix(2)},
    "slopes": lambda heads: {"attn_mask": masks.alibi(torch.linspace(0.1, 1, heads))},
}
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
ROWS = {
    "entropy": lambda m: m.entropy(),
    "maximum": lambda m: m.maximum(),
    "effective_keys": lambda m: m.effective_keys(),
    "mean_distance": lambda m: m.mean_distance(offset=1),
    "distance_spread": lambda m: m.distance_spread(),
    "mass_within": lambda m: m.mass_within(2),
    "mass_on": lambda m: m.mass_on([0, -1]),
    "mass_where": lambda m: m.mass_where(lambda batch, i, j: (i[:, None] + j + batch) % 2 == 0),
    "visible": lambda m: m.visible(),
    "kl": lambda m: m.kl(m),
    "inner": lambda m: m.inner(m),
}


def tensors(shape, dtype):
    batch, heads, kv_heads, length, keys = shape
    generator = torch.Generator().manual_seed(5)
    shapes = (batch, heads, length, D), (batch, kv_heads, keys, D), (batch, kv_heads, keys, E)
    return [torch.randn(own, generator=generator, dtype=torch.float64).to(dtype) for own in shapes]


def close(ours, theirs, dtype, name):
    """Check that the difference is at most 64 roundings of the largest number."""
    assert ours.shape == theirs.shape, f"{name}: {ours.shape}, expected {theirs.shape}"
    assert torch.equal(ours == -torch.inf, theirs == -torch.inf), name
    ours, theirs = (torch.where(each == -torch.inf, 0, each).double() for each in (ours, theirs))
    if theirs.numel():
        error, largest = (ours - theirs).abs().max(), theirs.abs().max()
        assert error <= 64 * torch.finfo(dtype).eps * (1 + largest), f"{name}: off by {error}"


def attends(shape, dtype, call, algorithm, name):
    options = {"enable_gqa": True, "return_lse": True, **CALLS[call](shape[1])}
    if "sinks" in options:
        options["sinks"] = options["sinks"].to(dtype)
    inputs = [tensor.requires_grad_() for tensor in tensors(shape, dtype)]
    expected = clearhead.attention(*inputs, **options)
    upstream = torch.linspace(-1, 1, expected[0].numel(), dtype=torch.float64).view(expected[0].shape).to(dtype)
    (expected[0] * upstream).sum().backward()
    own = [distributed.shard(tensor.detach()).requires_grad_() for tensor in inputs]
    out, lse = distributed.attention(*own, algorithm=algorithm, **options)
    assert out.dtype == expected[0].dtype
    (out * distributed.shard(upstream)).sum().backward()
    close(distributed.gather(out), expected[0].detach(), dtype, f"{name} out")
    close(distributed.gather(lse, -1), expected[1].detach(), dtype, f"{name} lse")
    for letter, ours, theirs in zip("qkv", own, inputs, strict=True):
        close(distributed.gather(ours.grad), theirs.grad, dtype, f"{name} gradient of {letter}")


def asks(shape, dtype, call, name):
    options = {"enable_gqa": True, "return_matrix": True, **CALLS[call](shape[1])}
    if "sinks" in options:
        options["sinks"] = options["sinks"].to(dtype)
    inputs = tensors(shape, dtype)
    _, whole = clearhead.attention(*inputs, **options)
    _, matrix = distributed.attention(*map(distributed.shard, inputs), **options)
    batch, heads, _, length, keys = shape
    for question, ask in ROWS.items():
        close(distributed.gather(ask(matrix), -1), ask(whole), dtype, f"{name} {question}")
    count = min(3, keys)
    close(distributed.gather(matrix.topk(count)[0]), whole.topk(count)[0], dtype, f"{name} topk")
    close(distributed.gather(matrix.received(), -1), whole.received(), dtype, f"{name} received")
    close(matrix.pooled(2, 3), whole.pooled(2, 3), dtype, f"{name} pooled")
    upstream = torch.linspace(-1, 1, E).to(dtype).expand(batch, heads, length, E)
    shared = distributed.shard(upstream)
    ours, theirs = matrix.gradient_times(shared), whole.gradient_times(upstream)
    close(distributed.gather(ours, -1), theirs, dtype, f"{name} gradient_times")
    for product, left, right, size in (("A @ X", whole, matrix, keys), ("A.mT @ Y", whole.mT, matrix.mT, length)):
        columns = torch.linspace(-1, 1, 2 * size).view(size, 2).to(dtype)
        close(distributed.gather(right @ distributed.shard(columns)), left @ columns, dtype, f"{name} {product}")
    if length == keys:
        columns = torch.linspace(-1, 1, batch * size * 2).view(batch, size, 2).to(dtype)
        expected = clearhead.rollout([whole, whole]) @ columns
        ours = distributed.rollout([matrix, matrix]) @ distributed.shard(columns)
        close(distributed.gather(ours), expected, dtype, f"{name} rollout")


def every_shape(rank, size, shapes, dtypes):
    for shape in shapes:
        for call in CALLS:
            for dtype in dtypes:
                name = f"{shape} {call} {dtype} on {size} ranks"
                algorithms = ["ring", "heads"] if shape[2] % size == 0 and shape[1] % size == 0 else ["ring"]
                for algorithm in algorithms:
                    attends(shape, dtype, call, algorithm, f"{name} by {algorithm}")
                asks(shape, dtype, call, name)
    dist.barrier()


@pytest.mark.slow
def test_tokens_that_three_ranks_do_not_divide():
    world(3, every_shape, [(1, 6, 2, 7, 7), (0, 4, 4, 5, 5)], [torch.float64])


@pytest.mark.slow
def test_more_ranks_than_tokens():
    world(4, every_shape, [(1, 4, 2, 3, 3)], [torch.bfloat16])


@pytest.mark.stress
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_shape_and_dtype(size):
    world(size, every_shape, SHAPES, DTYPES)
