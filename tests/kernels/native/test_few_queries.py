"""A few queries, alone or left over by whole tiles: narrow rows, transposed keys, bands and masks, on every CPU target."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import clearhead
import reference
from clearhead import kernels
from clearhead.kernels import Problem

from ..targets import TARGETS, needs_native

pytestmark = needs_native

# Twice the worst case measured here, in units of the dtype's epsilon and of the largest output and lse: those of float32 and
# float64 are sums in them, the others are rounded once.
UNITS = {torch.float32: 16, torch.float64: 16, torch.bfloat16: 1, torch.float16: 1}
BOUNDS = {dtype: units * torch.finfo(dtype).eps for dtype, units in UNITS.items()}
LENGTHS = (1, 2, 3, 5, 7, 8, 9, 17, 19, 33, 37)
LAYOUTS = ("whole", "heads apart", "columns apart")
WIDTHS = (1, 2, 3, 5, 7, 8, 11, 13, 16, 17, 23, 29, 31, 37, 67)


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same numbers (B, H, L, D), with the heads or the columns apart in memory."""
    if layout == "heads apart":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    return x.mT.contiguous().mT if layout == "columns apart" else x


def drawn(data: st.DataObject, *options: Any) -> Any:
    return data.draw(st.sampled_from(options))


def drawn_tensors(
    data: st.DataObject, make: torch.Generator, dtype: torch.dtype, lengths: tuple[int, ...], keys: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of any width, group and layout."""
    heads, group, length, size = (
        drawn(data, 1, 2, 3),
        drawn(data, 1, 1, 2, 5),
        drawn(data, *lengths),
        drawn(data, *keys),
    )
    width, value_width = drawn(data, *WIDTHS), drawn(data, *WIDTHS)
    query, key, value = (
        laid_out(torch.randn(2, h, n, columns, generator=make).to(dtype), drawn(data, *LAYOUTS))
        for h, n, columns in ((heads * group, length, width), (heads, size, width), (heads, size, value_width))
    )
    return query, key, value


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@given(data=st.data())
@settings(max_examples=40, derandomize=True)
def test_any_few_queries(target: str, dtype: torch.dtype, data: st.DataObject) -> None:
    make = torch.Generator().manual_seed(drawn(data, *range(100)))
    query, key, value = drawn_tensors(data, make, dtype, LENGTHS, (1, 7, 31, 128, 131, 293))
    length, keys = query.shape[2], key.shape[2]
    allow = drawn(data, None, "all", "row")
    options: dict[str, Any] = {
        "is_causal": drawn(data, False, False, True),
        "allow": allow and torch.rand(length if allow == "all" else 1, keys, generator=make) < 0.7,
        "bias": torch.randn(length, keys, generator=make).to(dtype) if drawn(data, False, True) else None,
        "softcap": drawn(data, None, None, 3.0),
    }
    with kernels.target(target):
        result = kernels.run(Problem(query, key, value, 0.3, **options), kernel="native")
    out, lse = reference.attention(*(x.double() for x in (query, key, value)), scale=0.3, **options)
    bound = BOUNDS[dtype]
    torch.testing.assert_close(result.out.double(), out, atol=bound * max(1.0, float(out.abs().max())), rtol=bound)
    torch.testing.assert_close(result.lse.double(), lse, atol=bound * 4, rtol=bound)


@pytest.mark.parametrize("target", TARGETS)
def test_keys_outside_the_band_are_not_read(target: str) -> None:
    query, key, value = torch.randn(3, 1, 2, 293, 5, generator=torch.Generator().manual_seed(0))
    clean = key.clone()
    with kernels.target(target):
        for rows in (query[:, :, :3], query[:, :, :19]):
            key[:, :, rows.shape[2] :] = torch.nan
            out = kernels.run(Problem(rows, key, value, 0.3, is_causal=True), kernel="native").out
            key.copy_(clean)
            assert torch.equal(out, kernels.run(Problem(rows, key, value, 0.3, is_causal=True), kernel="native").out)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("length", [17, 19, 35])
def test_dropout_drops_the_same_weights_of_the_last_queries(target: str, length: int) -> None:
    make = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(2, 3, length, 5, generator=make), *torch.randn(2, 2, 3, 31, 5, generator=make)

    def dropped(queries: Tensor, first: int) -> Tensor:
        problem = Problem(queries, key, value, 0.3, dropout_p=0.4, seed=7, first_query=first)
        return kernels.run(problem, kernel="native").out

    with kernels.target(target):
        whole, last = dropped(query, 0), dropped(query[:, :, length - 1 :], length - 1)
    torch.testing.assert_close(whole[:, :, -1:], last, atol=1e-5, rtol=1e-5)


SHAPES = {
    "values of another width": ((2, 3, 37, 11), (2, 3, 53, 11), (2, 3, 53, 5)),
    "three axes": ((3, 37, 11), (3, 53, 11), (3, 53, 11)),
    "two axes": ((37, 11), (53, 11), (53, 7)),
    "one query": ((2, 3, 1, 11), (2, 3, 53, 11), (2, 3, 53, 67)),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("mask", [None, "bool", "float", "causal"])
def test_gradients_of_tensors_that_torchs_kernel_does_not_read(
    name: str, is_transposed: bool, mask: str | None
) -> None:
    make = torch.Generator().manual_seed(0)
    leaves = [torch.randn(shape, generator=make).double() for shape in SHAPES[name]]
    upstream = torch.randn(*SHAPES[name][0][:-1], SHAPES[name][2][-1], generator=make).double()
    allowed = torch.rand(SHAPES[name][0][-2], 53, generator=make) < 0.7
    numbers = torch.randn(allowed.shape, generator=make)

    def gradients(attend: Any, dtype: torch.dtype) -> tuple[Tensor, ...]:
        inputs = [x.to(dtype) for x in leaves]
        if is_transposed:
            inputs[1] = inputs[1].mT.contiguous().mT
        inputs = [x.requires_grad_() for x in inputs]
        options: dict[str, Any] = {"is_causal": mask == "causal"}
        if mask in ("bool", "float"):
            options["attn_mask"] = allowed if mask == "bool" else numbers.to(dtype)
        out = attend(*inputs, **options)
        return out, *torch.autograd.grad(out, inputs, upstream.to(dtype))

    truth = gradients(torch.nn.functional.scaled_dot_product_attention, torch.float64)
    for ours, theirs in zip(gradients(clearhead.attention, torch.float32), truth, strict=True):
        torch.testing.assert_close(
            ours.double(), theirs, atol=2e-6 * max(1.0, float(theirs.detach().abs().max())), rtol=1e-5
        )
