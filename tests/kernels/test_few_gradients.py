"""Gradients of a few queries and of several blocks: every input that has one, every layout, on every CPU target."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clearhead import kernels
from clearhead.kernels import Problem
from clearhead.kernels.native.cpu_targets import has_tiles, targets
from clearhead.kernels.registry import KERNELS

from .targets import TARGETS, needs_native
from .test_contract import exact, gradients, runner
from .test_few_queries import BOUNDS, drawn, drawn_tensors, laid_out

pytestmark = needs_native

LENGTHS = (1, 2, 3, 5, 7, 8, 9, 11, 12, 13, 16)
SEVERAL_BLOCKS = (17, 31, 67, 101, 131)
KEYS = (1, 7, 31, 127, 128, 131, 293)
BIASES = ("none", "every pair", "heads share it", "one number a query", "keys alone")


def most_by_rows(name: str, dtype: torch.dtype) -> int:
    """How many queries a target computes row by row: more of them round as a tile does (test_contract.py)."""
    lanes = next(target.lanes for target in targets() if target.name == name) // (2 if dtype is torch.float64 else 1)
    if lanes < 16 or (has_tiles(name) and dtype is torch.bfloat16):
        return 8
    return 16 if lanes >= 32 else 12


def bias_of(kind: str, heads: int, length: int, keys: int, make: torch.Generator) -> Tensor | None:
    shapes = {
        "every pair": (2, heads, length, keys),
        "heads share it": (1, 1, length, keys),
        "one number a query": (1, heads, length, 1),
        "keys alone": (2, 1, 1, keys),
    }
    return torch.randn(shapes[kind], generator=make) if kind in shapes else None


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@given(data=st.data())
@settings(max_examples=25, derandomize=True)
def test_any_gradients_of_few_queries(target: str, dtype: torch.dtype, data: st.DataObject) -> None:
    most = most_by_rows(target, dtype)
    check_gradients(data, target, dtype, [n for n in LENGTHS if n <= most], (None, -2), 4 * BOUNDS[dtype])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@given(data=st.data())
@settings(max_examples=15, derandomize=True)
def test_any_gradients_of_blocks_of_queries(target: str, dtype: torch.dtype, data: st.DataObject) -> None:
    check_gradients(data, target, dtype, SEVERAL_BLOCKS, (None, -2, -31, -50), 8 * BOUNDS[dtype])


def check_gradients(
    data: st.DataObject, target: str, dtype: torch.dtype, lengths: Sequence[int], bands: Sequence[int | None],
    bound: float,
) -> None:  # fmt: skip
    """Compare the gradients of a drawn problem with those of the float64 equation."""
    make = torch.Generator().manual_seed(drawn(data, *range(100)))
    query, key, value = drawn_tensors(data, make, dtype, lengths, KEYS)
    heads, length, keys = *query.shape[1:3], key.shape[2]
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    bias = bias_of(drawn(data, *BIASES), heads, length, keys, make)
    per_head = {name: torch.rand(heads, generator=make).to(wide) for name in ("alibi", "sinks", "head_scale")}
    problem = Problem(query, key, value, 0.3).change(
        bias=None if bias is None else bias.to(dtype),
        allow=drawn(data, None, torch.rand(length, keys, generator=make) < 0.7),
        softcap=drawn(data, None, None, 3.0),
        band_low=drawn(data, *bands),
        band_high=drawn(data, None, 0, 100),
        **{name: numbers for name, numbers in per_head.items() if drawn(data, False, False, True)},
    )
    if drawn(data, False, False, True):
        problem = problem.change(dropout_p=0.3, seed=7)
    through = drawn(data, "out", "lse", "both")
    with kernels.target(target):
        got = gradients(runner("native"), problem, through)
    for name, truth in gradients(exact, problem, through).items():
        size = max(1.0, float(truth.abs().max()) if truth.numel() else 0.0)
        if name not in ("query", "key", "value"):  # sums over queries, and over batches and heads that share a bias
            size *= (2 * heads * length) ** 0.5
        torch.testing.assert_close(got[name].double(), truth.double(), atol=bound * size, rtol=bound, msg=name)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("window", [29, 30, 31, 32])
def test_windows_begin_at_any_key_of_a_pair(target: str, dtype: torch.dtype, window: int) -> None:
    make = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 101, 7, generator=make).to(dtype) for _ in range(3))
    problem = Problem(query, key, value, 0.3).change(band_low=-window, band_high=0)
    with kernels.target(target):
        got = gradients(runner("native"), problem, "out")
    for name, truth in gradients(exact, problem, "out").items():
        bound = 2 * BOUNDS[dtype]
        torch.testing.assert_close(got[name].double(), truth.double(), atol=bound, rtol=bound, msg=name)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("is_transposed", [False, True])
def test_keys_and_values_that_are_left_out_at_the_end_may_be_nan(target: str, is_transposed: bool) -> None:
    make = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(2, 3, 5, 11, generator=make), *torch.randn(2, 2, 3, 293, 11, generator=make)
    allow = torch.arange(293) < 261

    def got() -> dict[str, Tensor]:
        tensors = (laid_out(x, "columns apart") for x in (key, value)) if is_transposed else (key, value)
        with kernels.target(target):
            return gradients(runner("native"), Problem(query, *tensors, 0.3, allow=allow), "both")

    clean = got()
    key[:, :, 261:] = value[:, :, 261:] = torch.nan
    for name, grad in got().items():
        assert torch.equal(grad, clean[name])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("length", [8, 9, 12, 13, 16, 17])
def test_parts_of_the_keys_give_parts_of_the_gradients_where_that_is_said(target: str, length: int) -> None:
    make = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, n, 11, generator=make) for n in (length, 67, 67))
    problem, upstream = Problem(query, key, value, 0.3), torch.randn(query.shape, generator=make)
    native = KERNELS["native"]
    if not native.takes_some_keys(problem):
        pytest.skip(f"the native kernel takes no part of the keys of {length} queries")
    with kernels.target(target):
        result = native.forward(problem)
        whole = native.backward(problem, result, upstream, None)
        parts = [
            native.backward(problem.change(key=key[:, :, keys], value=value[:, :, keys]), result, upstream, None)
            for keys in (slice(0, 31), slice(31, 67))
        ]
    bound = BOUNDS[torch.float32]
    torch.testing.assert_close(parts[0].query + parts[1].query, whole.query, atol=bound, rtol=bound)
    torch.testing.assert_close(torch.cat([part.key for part in parts], 2), whole.key, atol=bound, rtol=bound)
