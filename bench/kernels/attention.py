"""Attention, forward, backward and decoding, compared with torch's `scaled_dot_product_attention`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.harness.measure import Way
from bench.harness.work import QUICK, SHAPES, Work, inputs, name_of
from clearhead import kernels
from clearhead.kernels import Problem


def work(quick: bool) -> Iterator[Work]:
    shapes = QUICK if quick else SHAPES
    both = (torch.float32, torch.bfloat16)
    for make in (_forward, _backward):
        for dtype in both:
            for causal in (False, True):
                yield from (make(shape, dtype, causal) for shape in shapes)
    yield from (_decode(batch, dtype) for dtype in both for batch in (1, 8))
    yield _window(2048 if quick else 8192, 256)
    yield from (_masked(kind, 512 if quick else 2048) for kind in ("padding", "dense bool", "dense float"))


@contextmanager
def precision(setting: str) -> Iterator[None]:
    """Let torch's oneDNN multiply float32 in lower precision: faster on some CPUs, and less exact."""
    matmul: Any = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = setting
    try:
        yield
    finally:
        matmul.fp32_precision = before


def exactly(shape: tuple[int, ...], dtype: torch.dtype, keys: int | None = None, **options: Any) -> Tensor:
    """The float64 reference's output for `inputs(shape, dtype, keys)`; `options` are those of `Problem`."""
    query, key, value = (tensor.double() for tensor in inputs(shape, dtype, keys))
    with torch.no_grad():
        return kernels.run(Problem(query, key, value, shape[-1] ** -0.5, **options), kernel="reference").out


def _forward(shape: tuple[int, ...], dtype: torch.dtype, causal: bool) -> Work:
    def make() -> dict[str, Way]:
        query, key, value = inputs(shape, dtype)
        problem = Problem(query, key, value, shape[-1] ** -0.5, is_causal=causal)

        def stock() -> Tensor:
            return F.scaled_dot_product_attention(query, key, value, is_causal=causal)

        def by(setting: str) -> Way:
            def way() -> Tensor:
                with precision(setting):
                    return stock()

            return way

        ways: dict[str, Way] = {"ours": lambda: kernels.run(problem, kernel="native").out, "sdpa": stock}
        if dtype == torch.float32:
            ways |= {f"sdpa, fp32_precision {setting}": by(setting) for setting in ("tf32", "bf16")}
            ways["eager"] = lambda: eager(query, key, value, causal)
        return ways

    batch, heads, length, width = shape
    flops = 4.0 * batch * heads * length * length * width * (0.5 if causal else 1)
    name = f"forward {name_of(dtype)}, {'causal' if causal else 'full'}"
    return Work(name, f"{shape}", flops, dtype, make, lambda: exactly(shape, dtype, is_causal=causal))


def eager(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """Attention as in a textbook, which stores the weights."""
    logits = query @ key.mT * query.shape[-1] ** -0.5
    if causal:
        logits = logits.masked_fill(torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    return torch.softmax(logits, dim=-1) @ value


def _backward(shape: tuple[int, ...], dtype: torch.dtype, causal: bool) -> Work:
    def make() -> dict[str, Way]:
        leaves = [tensor.requires_grad_() for tensor in inputs(shape, dtype)]
        upstream = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        ours = kernels.run(Problem(*leaves, shape[-1] ** -0.5, is_causal=causal), kernel="native").out
        theirs = F.scaled_dot_product_attention(*leaves, is_causal=causal)

        def of(out: Tensor) -> Way:
            return lambda: torch.cat(torch.autograd.grad(out, leaves, upstream, retain_graph=True))

        return {"ours": of(ours), "sdpa": of(theirs)}

    def exact() -> Tensor:
        leaves = [tensor.double().requires_grad_() for tensor in inputs(shape, dtype)]
        upstream = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        problem = Problem(*leaves, shape[-1] ** -0.5, is_causal=causal)
        return torch.cat(torch.autograd.grad(kernels.run(problem, kernel="reference").out, leaves, upstream.double()))

    batch, heads, length, width = shape
    flops = 10.0 * batch * heads * length * length * width * (0.5 if causal else 1)
    return Work(f"backward {name_of(dtype)}, {'causal' if causal else 'full'}", f"{shape}", flops, dtype, make, exact)


def _decode(batch: int, dtype: torch.dtype, keys: int = 4096) -> Work:
    shape = (batch, 8, 1, 64)

    def make() -> dict[str, Way]:
        query, key, value = inputs(shape, dtype, keys)
        problem = Problem(query, key, value, 0.125)
        return {
            "ours": lambda: kernels.run(problem, kernel="native").out,
            "sdpa": lambda: F.scaled_dot_product_attention(query, key, value),
        }

    flops, exact = 4.0 * batch * 8 * keys * 64, lambda: exactly(shape, dtype, keys)
    return Work(f"decode {name_of(dtype)}", f"{shape}, {keys} keys", flops, dtype, make, exact)


def _masked(kind: str, length: int) -> Work:
    shape = (1, 8, length, 64)

    def make() -> dict[str, Way]:
        query, key, value = inputs(shape, torch.float32)
        pick = torch.Generator().manual_seed(2)
        allow, bias = None, None
        if kind == "padding":
            allow = (torch.arange(length) < length * 3 // 4)[None, None, None]
        elif kind == "dense bool":
            allow = torch.rand(1, 1, length, length, generator=pick) < 0.5
        else:
            bias = torch.randn(1, 1, length, length, generator=pick)
        problem = Problem(query, key, value, 0.125, allow=allow, bias=bias)
        mask = allow if bias is None else bias
        return {
            "ours": lambda: kernels.run(problem, kernel="native").out,
            "sdpa": lambda: F.scaled_dot_product_attention(query, key, value, attn_mask=mask),
        }

    flops = 4.0 * 8 * length * length * 64 * (0.75 if kind == "padding" else 1)
    return Work(f"masked forward float32, {kind}", f"{shape}", flops, torch.float32, make)


def _window(length: int, window: int) -> Work:
    shape = (1, 8, length, 64)

    def make() -> dict[str, Way]:
        query, key, value = inputs(shape, torch.float32)
        problem = Problem(query, key, value, 0.125, reach=(1 - window, 0))
        mask = torch.ones(length, length, dtype=torch.bool).tril().triu(1 - window)
        return {
            "ours": lambda: kernels.run(problem, kernel="native").out,
            "sdpa": lambda: F.scaled_dot_product_attention(query, key, value, attn_mask=mask),
        }

    flops = 4.0 * 8 * length * window * 64
    return Work(f"masked forward float32, window of {window}", f"{shape}", flops, torch.float32, make)
