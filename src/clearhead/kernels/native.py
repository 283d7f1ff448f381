"""Kernel "native": our C++ on the CPU, the one file that calls it (see native/).

The library holds one compiled copy of the kernels for each CPU target. The best one this machine can run is used;
`CLEARHEAD_KERNEL_TARGET=name` or `with kernels.target(name):` forces another.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import KernelError, OptionError
from clearhead.kernels.problem import Gradients, Problem, Result


def _library() -> Any:
    """The compiled module, or None where it was installed without a C++ compiler.

    It is loaded after torch, so that both share torch's libgomp and its pool of threads.
    """
    try:
        return import_module("clearhead._native")
    except ModuleNotFoundError:
        return None


_native = _library()

VARIABLE = "CLEARHEAD_KERNEL_TARGET"
_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_UNBOUNDED = 1 << 40  # a reach no sequence attains
_TEST_ONLY = ("avx2w16",)  # AVX-512's shapes in AVX2 instructions: there to be tested, never chosen
_forced: ContextVar[str | None] = ContextVar("clearhead kernel target", default=None)


@dataclass(frozen=True, slots=True)
class Target:
    """One compiled copy of the native kernels: its place in the library, its name, whether this CPU can run it."""

    index: int
    name: str
    runs_here: bool


def targets() -> list[Target]:
    """The copies in the native library, best first; empty where it was not built."""
    if _native is None:
        return []
    return [Target(index, name, runs) for index, (name, _lanes, runs) in enumerate(_native.targets())]


_TARGETS = targets()


@contextmanager
def target(name: str) -> Iterator[None]:
    """Force the native kernel to one CPU target inside a `with` block, in this thread or task.

    Raises:
        OptionError: no such target was compiled.
        KernelError: this CPU cannot run it.
    """
    _named(name)
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def current() -> tuple[Target, str]:
    """The target in use, and why in a few words.

    Raises:
        OptionError, KernelError: the environment variable or `target` forces one that cannot be had.
    """
    name = _forced.get()
    if name is not None:
        return _named(name), "forced by kernels.target"
    name = os.environ.get(VARIABLE)
    if name:
        return _named(name), f"forced by {VARIABLE}"
    best = next(t for t in _TARGETS if t.runs_here and t.name not in _TEST_ONLY)
    return best, "the best this CPU can run"


def _named(name: str) -> Target:
    for candidate in _TARGETS:
        if candidate.name == name:
            if not candidate.runs_here:
                able = ", ".join(t.name for t in _TARGETS if t.runs_here)
                raise KernelError(f"this CPU cannot run kernel target {name!r}. It can run: {able}.")
            return candidate
    known = ", ".join(t.name for t in _TARGETS) or "none, for the native library was not built"
    raise OptionError(f"there is no kernel target {name!r}. Compiled are: {known}. Unset {VARIABLE} for the best one.")


class Native:
    """float32, bfloat16 and float16 on the CPU, with float32 sums."""

    name = "native"

    def unavailable(self) -> str | None:
        return "the native library was not built: no C++ compiler was found at install" if _native is None else None

    def describe(self) -> str:
        chosen, why = current()
        others = ", ".join(t.name for t in _TARGETS if t.runs_here and t.name != chosen.name)
        return f"target {chosen.name}, {why}; also runs here: {others or 'nothing else'}"

    def refuses(self, problem: Problem) -> str | None:
        query = problem.query
        if query.device.type != "cpu":
            return f"it runs on the CPU and the tensors are on {query.device}"
        if query.dtype not in _DTYPES:
            return f"it has no {query.dtype}"
        for name in ("allow", "bias", "softcap", "sinks"):
            if getattr(problem, name) is not None:
                return f"it has no {name}"
        return "it has no dropout" if problem.dropout_p else None

    def forward(self, problem: Problem) -> Result:
        query, value = problem.query, problem.value
        out = _like_query(query, value.shape[-1])
        lse = query.new_empty(query.shape[:3], dtype=torch.float32)
        _native.forward(*_common(problem), _four(out), _three(lse))
        return Result(out, lse)

    def backward(self, problem: Problem, result: Result, grad_out: Tensor, grad_lse: Tensor | None) -> Gradients:
        grads = tuple(torch.empty_like(t).contiguous() for t in (problem.query, problem.key, problem.value))
        grad_lse = None if grad_lse is None else grad_lse.float()
        _native.backward(
            *_common(problem),
            _four(result.out),
            _three(result.lse),
            _four(grad_out),
            None if grad_lse is None else _three(grad_lse),
            *map(_four, grads),
        )
        return Gradients(*grads)


def _common(problem: Problem) -> tuple[object, ...]:
    """The arguments that forward and backward share, as native/binding.cpp names them."""
    query, key, value = problem.query, problem.key, problem.value
    batch, heads, length, width = query.shape
    _, kv_heads, keys, value_width = value.shape
    return (
        current()[0].index,
        torch.get_num_threads(),
        (batch, heads, kv_heads, length, keys, width, value_width),
        _DTYPES[query.dtype],
        problem.scale,
        -_UNBOUNDED,
        0 if problem.is_causal else _UNBOUNDED,
        _four(query),
        _four(key),
        _four(value),
    )


def _like_query(query: Tensor, width: int) -> Tensor:
    """An empty output laid out as the query is, so that what follows may merge the heads again for nothing."""
    batch, heads, length, _ = query.shape
    if query.stride(1) < query.stride(2):
        return query.new_empty(batch, length, heads, width).transpose(1, 2)
    return query.new_empty(batch, heads, length, width)


def _four(tensor: Tensor) -> tuple[int, ...]:
    return (tensor.data_ptr(), *tensor.stride())


def _three(tensor: Tensor) -> tuple[int, ...]:
    return (tensor.data_ptr(), *tensor.stride(), 0)
