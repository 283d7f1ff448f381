"""What is measured: each piece of work as ours and as its peers do it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead import kernels
from clearhead.kernels import Problem

from .measure import Way

SHAPES = ((1, 8, 512, 64), (1, 8, 2048, 64), (1, 8, 4096, 64), (8, 8, 128, 64), (1, 8, 2048, 128))
QUICK = ((1, 8, 512, 64), (8, 8, 128, 64))
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


@dataclass(frozen=True)
class Work:
    """One row of the table.

    Attributes:
        group: what the geometric mean is taken over.
        shape: in words, for the table.
        flops: useful floating-point operations; half of them where causal.
        make: gives the ways by name, "ours" first; each returns the tensor it is checked by.
    """

    group: str
    shape: str
    flops: float
    dtype: torch.dtype
    make: Callable[[], dict[str, Way]]


def all_work(quick: bool) -> Iterator[Work]:
    shapes = QUICK if quick else SHAPES
    for dtype in (torch.float32, torch.bfloat16):
        for causal in (False, True):
            for shape in shapes:
                yield _forward(shape, dtype, causal)
    for causal in (False, True):
        for shape in shapes:
            yield _backward(shape, torch.float32, causal)
    yield from (_decode(batch, dtype) for dtype in (torch.float32, torch.bfloat16) for batch in (1, 8))
    yield _window(2048 if quick else 8192, 256)
    yield from (_masked(kind, 512 if quick else 2048) for kind in ("padding", "dense bool", "dense float"))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _inputs(shape: tuple[int, ...], dtype: torch.dtype, keys: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    make = torch.Generator().manual_seed(0)
    batch, heads, length, width = shape
    sizes = (length, keys or length, keys or length)
    query, key, value = (torch.randn(batch, heads, n, width, generator=make).to(dtype) for n in sizes)
    return query, key, value


@contextmanager
def stricter_torch() -> Iterator[None]:
    """Route torch's float32 products to oneDNN, which is faster on some CPUs: a peer that is harder to beat."""
    matmul: Any = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _forward(shape: tuple[int, ...], dtype: torch.dtype, causal: bool) -> Work:
    def make() -> dict[str, Way]:
        query, key, value = _inputs(shape, dtype)
        problem = Problem(query, key, value, shape[-1] ** -0.5, is_causal=causal)

        def stock() -> Tensor:
            return F.scaled_dot_product_attention(query, key, value, is_causal=causal)

        def strict() -> Tensor:
            with stricter_torch():
                return stock()

        ways: dict[str, Way] = {"ours": lambda: kernels.run(problem, kernel="native").out, "sdpa": stock}
        if dtype == torch.float32:
            ways["sdpa, oneDNN"] = strict
            ways["eager"] = lambda: _eager(query, key, value, causal)
        return ways

    batch, heads, length, width = shape
    flops = 4.0 * batch * heads * length * length * width * (0.5 if causal else 1)
    return Work(f"forward {_name(dtype)}, {'causal' if causal else 'full'}", f"{shape}", flops, dtype, make)


def _eager(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    logits = query @ key.mT * query.shape[-1] ** -0.5
    if causal:
        logits = logits.masked_fill(torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    return torch.softmax(logits, dim=-1) @ value


def _backward(shape: tuple[int, ...], dtype: torch.dtype, causal: bool) -> Work:
    def make() -> dict[str, Way]:
        leaves = [tensor.requires_grad_() for tensor in _inputs(shape, dtype)]
        upstream = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        ours = kernels.run(Problem(*leaves, shape[-1] ** -0.5, is_causal=causal), kernel="native").out
        theirs = F.scaled_dot_product_attention(*leaves, is_causal=causal)

        def of(out: Tensor) -> Way:
            return lambda: torch.autograd.grad(out, leaves, upstream, retain_graph=True)[1]

        return {"ours": of(ours), "sdpa": of(theirs)}

    batch, heads, length, width = shape
    flops = 10.0 * batch * heads * length * length * width * (0.5 if causal else 1)
    return Work(f"backward {_name(dtype)}, {'causal' if causal else 'full'}", f"{shape}", flops, dtype, make)


def _decode(batch: int, dtype: torch.dtype, keys: int = 4096) -> Work:
    shape = (batch, 8, 1, 64)

    def make() -> dict[str, Way]:
        query, key, value = _inputs(shape, dtype, keys)
        problem = Problem(query, key, value, 0.125)
        return {
            "ours": lambda: kernels.run(problem, kernel="native").out,
            "sdpa": lambda: F.scaled_dot_product_attention(query, key, value),
        }

    return Work(f"decode {_name(dtype)}", f"{shape}, {keys} keys", 4.0 * batch * 8 * keys * 64, dtype, make)


def _masked(kind: str, length: int) -> Work:
    shape = (1, 8, length, 64)

    def make() -> dict[str, Way]:
        query, key, value = _inputs(shape, torch.float32)
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
        query, key, value = _inputs(shape, torch.float32)
        problem = Problem(query, key, value, 0.125, reach=(1 - window, 0))
        mask = torch.ones(length, length, dtype=torch.bool).tril().triu(1 - window)
        return {
            "ours": lambda: kernels.run(problem, kernel="native").out,
            "sdpa": lambda: F.scaled_dot_product_attention(query, key, value, attn_mask=mask),
        }

    flops = 4.0 * 8 * length * window * 64
    return Work(f"masked forward float32, window of {window}", f"{shape}", flops, torch.float32, make)
