"""Kernel "native": our C++ on the CPU, the one file that calls it (see native/).

The library holds one compiled copy of the kernels for each CPU target. The best one this machine can run is used;
`CLEARHEAD_KERNEL_TARGET=name` or `with kernels.target(name):` forces another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clearhead.errors import KernelError, OptionError
from clearhead.kernels.places import DTYPES, Extras, MoreGradients, four, lse_dtype, three, wide
from clearhead.kernels.problem import Gradients, Problem, Result, carries_tangent, has_own_memory, is_negated

if TYPE_CHECKING:
    from clearhead.kernels.second_pass import Statistics, Wanted


def _library() -> Any:
    """The compiled module, or None where it was installed without a C++ compiler.

    It is loaded after torch, so that both share torch's libgomp and its pool of threads.
    """
    try:
        return import_module("clearhead._native")
    except ModuleNotFoundError:
        return None


_native = _library()
# Whether the library reads torch's tensors by itself: torch has told it how (docs/decisions/0022).
_reads_tensors = _native is not None and _native.meet(
    Tensor, torch.nn.Parameter, getattr(Tensor, "__dlpack_c_exchange_api__", None)
)

VARIABLE = "CLEARHEAD_KERNEL_TARGET"
_UNBOUNDED = 1 << 40  # a reach no sequence attains
_TEST_ONLY = ("avx2w16", "avx2bf16w16")  # AVX-512's shapes in AVX2 instructions: there to be tested, never chosen
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
    return _default() if name is None else (_named(name), "forced by kernels.target")


@cache
def _default() -> tuple[Target, str]:
    """The target where none is forced in the program. The environment is read once: a look-up there costs 1 µs."""
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


def peak(steps: int = 1 << 20) -> float:
    """Do multiply-adds on registers alone, on all of torch's threads; return how many operations that was.

    Timing it tells what the machine's arithmetic can do at best. Runs tens of milliseconds.
    """
    return _native.peak(current()[0].index, torch.get_num_threads(), steps)


class Plain(IntEnum):
    """How the short way may compute a call (native/binding/fast_path.cpp says when)."""

    SPECIAL = 0  # not at all
    READ = 1  # natively, without gradients
    PLAIN = 2  # natively, with gradients too; or by torch's own kernel


def how_plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, grouped: bool) -> int:
    """Whether a call is of the commonest kind; the functions below take nothing else. A Plain; takes a microsecond.

    That is: tensors of torch's own class, or parameters, on the CPU, of one float dtype, none empty, query
    (B, H, L, D), key (B, H_kv, S, D), value (B, H_kv, S, E); a mask that spreads to (B, H, L, S), bool, float32 or of
    their dtype, or None. B may be 1 for key and value, H_kv too, and with `grouped` H_kv divides H. All may lack B, or
    B and H.
    """
    return _native.how_plain(query, key, value, mask, grouped) if _reads_tensors else Plain.SPECIAL


def attend_plainly(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, grouped: bool, is_causal: bool, scale: float,
    lse: Tensor | None,
) -> Tensor:  # fmt: skip
    """Output (B, H, L, E), and into `lse`, (B, H, L), float32 or float64, where it is given."""
    width = value.shape[-1]
    out = torch.empty_like(query)  # laid out as the query is, as far as it fills its memory
    if width != query.shape[-1] or out.stride(-1) != 1:  # of windows that overlap another axis may come last
        out = query.new_empty(*query.shape[:-1], width)
    threads = torch.get_num_threads()
    _native.attend_plainly(current()[0].index, threads, query, key, value, mask, grouped, is_causal, scale, out, lse)
    return out


def gradients_plainly(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, grouped: bool, is_causal: bool, scale: float,
    out: Tensor, lse: Tensor, grad_out: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of query, key and value, from what `attend_plainly` gave for the same arguments."""
    grads = query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)
    call = (query, key, value, mask, grouped, is_causal, scale, out, lse, grad_out.resolve_neg(), *grads)
    _native.gradients_plainly(current()[0].index, torch.get_num_threads(), *call)
    return grads


def starts_with_0_or_1(tensor: Tensor) -> bool:
    """Whether the first number of a float tensor is 0 or 1; asked of every float mask, so it has to cost nothing."""
    found = _native.starts_with_0_or_1(tensor) if _reads_tensors else -1
    return tensor[(0,) * tensor.dim()].item() in (0, 1) if found < 0 else bool(found)


class Native:
    """float32, bfloat16 and float16 on the CPU, with float32 sums; float64 with its own."""

    name = "native"

    def unavailable(self) -> str | None:
        return "the native library was not built: no C++ compiler was found at install" if _native is None else None

    def describe(self) -> str:
        chosen, why = current()
        others = ", ".join(t.name for t in _TARGETS if t.runs_here and t.name != chosen.name)
        return f"target {chosen.name}, {why}; also runs here: {others or 'nothing else'}"

    def refuses(self, problem: Problem) -> str | None:
        query = problem.query
        if not query.is_cpu:
            return f"it runs on the CPU and the tensors are on {query.device}"
        if query.dtype not in DTYPES:
            return f"it has no {query.dtype}"
        if problem.key.shape[1] == 0:
            return "there are no heads"
        tensors = (query, problem.key, problem.value, problem.bias, problem.sinks, problem.alibi)
        if not has_own_memory(*tensors, problem.allow):
            return "a tensor has no memory of its own: it is inside torch.vmap, or of a class that wraps others"
        if carries_tangent(*tensors):
            return "the tensors carry tangents of forward-mode differentiation, which it does not pass on"
        if is_negated(*tensors):
            return "a tensor's memory holds the negative of its numbers; call .resolve_neg() on it"
        if problem.bias is not None and not _adds(problem.bias.dtype, query.dtype):
            return f"it adds no {problem.bias.dtype} bias to {query.dtype}"
        return None

    def forward(self, problem: Problem) -> Result:
        result = _room(problem, lse_dtype(problem.query.dtype))
        extras = Extras(problem)
        _native.forward(*_common(problem, extras), _tensors(problem, result))
        return result

    def backward(self, problem: Problem, result: Result, grad_out: Tensor, grad_lse: Tensor | None) -> Gradients:
        grads = [torch.empty_like(t).contiguous() for t in (problem.query, problem.key, problem.value)]
        extras = Extras(problem)
        more = MoreGradients(problem)
        if result.out.stride(-1) != 1:  # it came back from a hook on saved tensors, laid out anew
            result = Result(result.out.contiguous(), result.lse)
        grad_lse = None if grad_lse is None else grad_lse.to(wide(problem.query.dtype)).resolve_neg()
        grad_out = grad_out.resolve_neg()  # it is held until the library returns
        places = (four(grad_out), None if grad_lse is None else three(grad_lse), *map(four, grads), *more.places())
        _native.backward(*_common(problem, extras), _tensors(problem, result), places)
        return Gradients(grads[0], grads[1], grads[2], *more.found())


def _adds(bias: torch.dtype, query: torch.dtype) -> bool:
    return bias in DTYPES and (bias is not torch.float64 or query is torch.float64)


def has_only_output(problem: Problem) -> str | None:
    """Why output, lse and gradients are all that is computed of a problem; None if statistics and weights are too."""
    return "of float64 it gives no statistics and no weights" if problem.query.dtype is torch.float64 else None


def statistics(problem: Problem, lse: Tensor, rows: range, keys: range, wanted: Wanted, found: Statistics) -> None:
    """Write what is wanted of a part of the rows and keys into `found`; sums over rows are added to what is there."""
    tensors = (four(problem.query), four(problem.key), None, None, three(lse), DTYPES[lse.dtype])
    extras = Extras(problem)  # holds what the library reads until it returns
    _native.statistics(*_common(problem, extras), tensors, _places(rows, keys, wanted, found))


def forward_with(problem: Problem, wanted: Wanted, found: Statistics) -> Result:
    """A forward pass that on its way writes entropy, maximum, squares, mass and the best of each row into `found`."""
    length = problem.query.shape[2]
    result = _room(problem)
    extras = Extras(problem)
    places = _places(range(length), range(problem.key.shape[2]), wanted, found)
    _native.forward(*_common(problem, extras), _tensors(problem, result), places)
    return result


def _places(rows: range, keys: range, wanted: Wanted, found: Statistics) -> tuple[int, ...]:
    """Where statistics go, in the order of native/binding/binding.cpp."""
    cells = wanted.cells
    rowwise = (found.entropy, found.maximum, found.squares, found.mass, found.distance, found.spread)
    return (
        *(rows.start, rows.stop, keys.start, keys.stop),
        *map(_address, rowwise),
        wanted.offset,
        _address(found.received),
        wanted.topk,
        *map(_address, (found.best, found.best_keys)),
        *((0, 0) if cells is None else (len(cells.rows), len(cells.keys))),
        *((0, 0) if cells is None else (cells.rows.data_ptr(), cells.keys.data_ptr())),
        _address(found.map),
        0 if cells is None else int(cells.by_maximum),
    )


def _address(tensor: Tensor) -> int:
    """0 for an empty tensor, which is not wanted. It is not asked: made inside a transform, it could not answer."""
    return tensor.data_ptr() if tensor.numel() else 0


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, strides: tuple[int, ...], length: int) -> None:
    """Write x weightᵀ + bias, (R, O), into `out`, whose last axis is one head, contiguous.

    Args:
        strides: of `out`, in the order batch, head, row, 1; row r of the product is row r % length of batch
            r // length.
    """
    rows, inputs = x.shape
    sizes = (rows, inputs, len(weight), max(1, length), max(1, out.shape[-1]), DTYPES[x.dtype])
    tensors = (
        (x.data_ptr(), 0, 0, *x.stride()),
        (weight.data_ptr(), 0, 0, *weight.stride()),
        (out.data_ptr(), *strides),
    )
    address = 0 if bias is None else bias.data_ptr()
    _native.linear(current()[0].index, torch.get_num_threads(), sizes, tensors, address)


def forward_with_weights(problem: Problem, weights: Tensor) -> Result:
    """A forward pass that also writes the weights, (B, H, L, S); their mean over heads where heads have stride 0."""
    result = _room(problem)
    extras = Extras(problem)
    _native.weights(*_common(problem, extras), _tensors(problem, result), four(weights))
    return result


def _common(problem: Problem, extras: Extras) -> tuple[object, ...]:
    """The arguments that forward and backward share, as native/binding/binding.cpp names them."""
    batch, heads, length, width = problem.query.shape
    _, kv_heads, keys, value_width = problem.value.shape
    low, high = problem.band
    reach = -_UNBOUNDED if low is None else low, _UNBOUNDED if high is None else high
    sizes = (batch, heads, kv_heads, length, keys, width, value_width, DTYPES[problem.query.dtype], *reach)
    return current()[0].index, torch.get_num_threads(), sizes, problem.scale, extras.places()


def _tensors(problem: Problem, result: Result) -> tuple[object, ...]:
    tensors = (problem.query, problem.key, problem.value, result.out)
    return (*map(four, tensors), three(result.lse), DTYPES[result.lse.dtype])


def _room(problem: Problem, dtype: torch.dtype = torch.float32) -> Result:
    """Output and lse of a problem, not yet written; the lse in `dtype`."""
    batch, heads, length, _ = problem.query.shape
    lse = problem.query.new_empty((batch, heads, length), dtype=dtype)
    return Result(_like_query(problem.query, problem.value.shape[-1]), lse)


def _like_query(query: Tensor, width: int) -> Tensor:
    """An empty output laid out as the query is, so that what follows may merge the heads again for nothing."""
    batch, heads, length, query_width = query.shape
    if query.stride(1) < query.stride(2):
        return query.new_empty(batch, length, heads, width).transpose(1, 2)
    if width == query_width and query.is_contiguous():
        return torch.empty_like(query)  # half the price
    return query.new_empty(batch, heads, length, width)
