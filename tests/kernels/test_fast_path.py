"""The fast path equals the fallback, and is not used for special tensors."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from clearhead import attention, kernels
from clearhead.errors import KernelError
from clearhead.kernels import Problem
from clearhead.kernels.calls.checks import starts_with_0_or_1

from .rounding import assert_within
from .targets import needs_native, own_target  # noqa: F401

pytestmark = [needs_native, pytest.mark.pairwise, pytest.mark.usefixtures("own_target")]


def three(dtype: torch.dtype = torch.float32, heads_apart: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    make = torch.Generator().manual_seed(0)
    sizes = ((2, 3, 37, 11), (2, 3, 53, 11), (2, 3, 53, 11))
    tensors = (torch.randn(size, generator=make).to(dtype) for size in sizes)
    query, key, value = (x if heads_apart else x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors)
    return query, key, value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("heads_apart", [True, False])
@pytest.mark.parametrize("is_causal", [True, False])
def test_the_fast_path_equals_the_fallback(dtype: torch.dtype, heads_apart: bool, is_causal: bool) -> None:
    query, key, value = three(dtype, heads_apart)
    out = kernels.attend(query, key, value, is_causal, None)
    fallback = kernels.run(Problem(query, key, value, 11**-0.5, is_causal=is_causal), kernel="native").out
    assert out is not None
    assert torch.equal(out, fallback)
    assert out.stride() == fallback.stride()
    assert torch.equal(attention(query, key, value, is_causal=is_causal), fallback)


def test_a_scale_is_used() -> None:
    query, key, value = three()
    out = kernels.attend(query, key, value, False, 0.25)
    assert out is not None
    assert torch.equal(out, kernels.run(Problem(query, key, value, 0.25), kernel="native").out)


def test_is_causal_may_be_an_integer() -> None:
    query, key, value = three()
    for kernel in (None, "native"):
        assert torch.equal(
            attention(query, key, value, is_causal=1, kernel=kernel), attention(query, key, value, is_causal=True)
        )


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"softcap": 3.0}], ids=str)
def test_freed_memory_is_not_read(which: int, options: dict[str, Any]) -> None:
    tensors = three()
    tensors[which].untyped_storage().resize_(0)
    with pytest.raises(RuntimeError):
        attention(*tensors, **options)


def learns(x: Tensor) -> Tensor:
    return x.clone().requires_grad_()


SPECIAL: dict[str, Callable[[Tensor], Any]] = {
    "another dtype": lambda x: x.double(),
    "three axes": lambda x: x[0],
    "another width": lambda x: x[..., :7],
    "two heads": lambda x: x[:, :2],
    "a subclass": lambda x: x.as_subclass(type("Own", (Tensor,), {})),
    "the meta device": lambda x: x.to("meta"),
    "no rows": lambda x: x[:, :, :0],
    "no tensor": lambda x: x.tolist(),
    "None": lambda x: None,
    "nested": lambda x: torch.nested.as_nested_tensor(list(x), layout=torch.jagged),
    "sparse": lambda x: x.to_sparse(),
    "complex": lambda x: x.to(torch.complex64),
    "a negated part of a complex tensor": lambda x: torch.complex(x, -x).conj().imag,
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("which", [0, 1])
def test_the_fast_path_is_not_used_for_special_tensors(name: str, which: int) -> None:
    tensors: list[Any] = list(three())
    tensors[which] = SPECIAL[name](tensors[which])
    assert kernels.attend(tensors[0], tensors[1], tensors[2], False, None) is None


# Shapes of query, key, value and mask; whether heads are grouped; whether the fast path computes gradients.
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...] | None, bool, bool]] = {
    "grouped heads": ((2, 6, 37, 11), (2, 3, 53, 11), (2, 3, 53, 11), None, True, True),
    "grouped heads, mask": ((2, 6, 37, 11), (2, 2, 53, 11), (2, 2, 53, 11), (2, 6, 37, 53), True, True),
    "one query of grouped heads": ((2, 6, 1, 11), (2, 3, 53, 11), (2, 3, 53, 11), (2, 1, 1, 53), True, True),
    "one key head": ((2, 3, 37, 11), (2, 1, 53, 11), (2, 1, 53, 11), None, False, False),
    "one key batch": ((2, 3, 37, 11), (1, 3, 53, 11), (1, 3, 53, 11), (37, 53), False, False),
    "one value batch": ((2, 3, 37, 11), (2, 3, 53, 11), (1, 3, 53, 11), None, False, False),
    "values of another width": ((2, 3, 37, 11), (2, 3, 53, 11), (2, 3, 53, 5), None, False, True),
    "three axes": ((3, 37, 11), (3, 53, 11), (3, 53, 11), (3, 37, 53), False, True),
    "three axes, one key batch": ((3, 37, 11), (1, 53, 11), (1, 53, 11), (1, 53), False, False),
    "two axes": ((37, 11), (53, 11), (53, 11), (37, 1), False, True),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", SHAPES)
def test_the_fast_path_equals_the_fallback_for_many_shapes(name: str, dtype: torch.dtype) -> None:
    make = torch.Generator().manual_seed(0)
    *shapes, shape, grouped, has_gradients = SHAPES[name]
    tensors = [torch.randn(shape, generator=make).to(dtype).requires_grad_() for shape in shapes]
    mask = None if shape is None else torch.randn(shape, generator=make)
    mask = mask if mask is None or dtype is not torch.float64 else mask.double()
    with_grad = kernels.attend(*tensors, False, None, mask, grouped)
    assert (with_grad is not None) is has_gradients
    with torch.no_grad():
        without_grad = kernels.attend(*tensors, False, None, mask, grouped)
        assert without_grad is not None
        with_lse = kernels.attend_with_lse(*tensors, False, None, mask, grouped)
    assert kernels.attend_with_lse(*tensors, False, None, mask, grouped) is None
    fallback, lse = attention(*tensors, mask, enable_gqa=grouped, return_lse=True)
    unit = torch.finfo(dtype).eps * (1 if dtype.itemsize == 2 else 8)
    unit_of_lse = 8 * torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    assert with_lse is not None
    assert torch.equal(with_lse[0], without_grad)
    assert_within(with_lse[1], lse.detach(), unit_of_lse, 4.0, "lse")
    for out in (without_grad, with_grad):
        if out is not None:
            assert out.shape == fallback.shape
            assert_within(out.detach(), fallback.detach(), unit, 4.0, "out")
    if with_grad is not None:
        upstream = torch.randn(fallback.shape, generator=make).to(dtype)
        ours, theirs = (torch.autograd.grad(out, tensors, upstream) for out in (with_grad, fallback))
        for mine, other in zip(ours, theirs, strict=True):
            assert_within(mine, other, unit, 4.0, "gradient")


@pytest.mark.parametrize("kind", ["parameter", "strided last axis"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_parameters_and_a_strided_last_axis_are_read(kind: str, dtype: torch.dtype) -> None:
    query, key, value = three(dtype)
    change = torch.nn.Parameter if kind == "parameter" else lambda x: x.mT.contiguous().mT
    with torch.no_grad():
        out = kernels.attend(change(query), change(key), change(value), False, None)
        plain = kernels.attend(query, key, value, False, None)
    assert out is not None
    torch.testing.assert_close(out, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("is_causal", [True, False])
def test_gradients_of_small_calls_equal_the_fallback(dtype: torch.dtype, is_causal: bool) -> None:
    leaves = [x[..., :13, :].detach().requires_grad_() for x in three(dtype)]
    grads = []
    for compute in (
        lambda: kernels.attend(*leaves, is_causal, None),
        lambda: kernels.run(Problem(*leaves, 11**-0.5, is_causal=is_causal)).out,
    ):
        out = compute()
        assert out is not None
        grads.append((out, *torch.autograd.grad((out * out).sum(), leaves)))
    for ours, fallback in zip(*grads, strict=True):
        assert torch.equal(ours, fallback)


@pytest.mark.parametrize("name", [None, "causal", "bool (L, S)", "float (B, H, L, S)"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_gradients_of_larger_calls_equal_the_fallback(dtype: torch.dtype, name: str | None) -> None:
    leaves = [learns(x) for x in three(dtype)]
    torch.manual_seed(1)
    mask = MASKS[name]() if name in MASKS else None
    allow = mask if mask is not None and mask.dtype == torch.bool else None
    bias = mask.to(dtype) if mask is not None and allow is None else None
    is_causal = name == "causal"
    problem = Problem(*leaves, 11**-0.5, is_causal=is_causal, allow=allow, bias=bias)
    grads = []
    for compute in (
        lambda: kernels.attend(*leaves, is_causal, None, allow if bias is None else bias),
        lambda: kernels.run(problem, kernel="native").out,
    ):
        out = compute()
        assert out is not None
        grads.append((out, *torch.autograd.grad((out * out).sum(), leaves)))
    for ours, fallback in zip(*grads, strict=True):
        assert torch.equal(ours, fallback)


@pytest.mark.parametrize("name", [None, "bool (L, S)", "float (L, S)"])
def test_the_fast_path_refuses_a_second_derivative(name: str | None) -> None:
    query, key, value = (learns(x) for x in three())
    out = kernels.attend(query, key, value, False, None, None if name is None else MASKS[name]())
    assert out is not None
    (grad,) = torch.autograd.grad(out.sum(), query, create_graph=True)
    with pytest.raises(KernelError, match=r"differentiated twice.*use torch.func.hessian"):
        grad.sum().backward()


def test_the_fast_path_detects_an_in_place_change() -> None:
    query, key, value = (learns(x) for x in three())
    held = key * 1.0
    out = kernels.attend(query, held, value, False, None)
    held.zero_()
    assert out is not None
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_an_empty_row_is_0_with_a_gradient_of_0(kind: str) -> None:
    query, key, value = (learns(x) for x in three(torch.float64))
    allow = torch.rand(37, 53) < 0.5
    allow[5] = False
    mask = allow if kind == "bool" else torch.zeros(37, 53).double().masked_fill(~allow, -torch.inf)
    out = attention(query, key, value, mask)
    assert torch.equal(out[:, :, 5], torch.zeros(2, 3, 11).double())
    grad = torch.autograd.grad(out.sum(), query)[0]
    assert grad.isfinite().all()
    assert not grad[:, :, 5].any()


def test_a_program_may_replace_torchs_function_by_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    query, key, value = three(torch.float64)
    assert attention(query, key, value).isfinite().all()


def test_the_fast_path_is_used_under_no_grad() -> None:
    query, key, value = three()
    with torch.no_grad():
        assert kernels.attend(learns(query), key, value, False, None) is not None


MASKS = {
    "bool (L, S)": lambda: torch.rand(37, 53) < 0.5,
    "bool (B, 1, 1, S)": lambda: torch.rand(2, 1, 1, 53) < 0.5,
    "bool (H, L, 1)": lambda: torch.rand(3, 37, 1) < 0.5,
    "float (L, S)": lambda: torch.randn(37, 53),
    "float (B, H, L, S)": lambda: torch.randn(2, 3, 37, 53),
    "float (1, S)": lambda: torch.randn(1, 53),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", MASKS)
def test_a_mask_on_the_fast_path_equals_the_fallback(name: str, dtype: torch.dtype) -> None:
    query, key, value = three(dtype)
    torch.manual_seed(1)
    mask = MASKS[name]()
    allow = mask if mask.dtype == torch.bool else None
    bias = None if allow is not None else mask.to(dtype)
    out = kernels.attend(query, key, value, False, None, mask if bias is None else bias)
    fallback = kernels.run(Problem(query, key, value, 11**-0.5, allow=allow, bias=bias)).out
    if out is None:  # a row may attend nothing, and torch's kernel would give NaN
        assert dtype is torch.float64
        assert allow is not None
        assert not allow.expand(2, 3, 37, 53).any(-1).all()
    else:
        assert torch.equal(out, fallback)


def test_an_unsupported_mask_takes_the_fallback() -> None:
    query, key, value = three()
    for mask in (torch.ones(53), torch.ones(53, 37), torch.randn(37, 53).double(), learns(torch.randn(37, 53))):
        assert kernels.attend(query, key, value, False, None, mask) is None
    assert kernels.attend(query, key, value, True, None, torch.ones(37, 53) == 1) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("nothing", [False, -torch.inf, torch.finfo(torch.float32).min], ids=str)
@pytest.mark.parametrize("length", [5, 37])
def test_an_empty_row_gives_zeros(length: int, nothing: float, dtype: torch.dtype) -> None:
    query, key, value = three(dtype)
    query = query[..., :length, :]
    rows = torch.arange(length) % 3 == 1
    if nothing is False:
        mask = ~rows[:, None].expand(length, 53)
    else:
        mask = torch.zeros(length, 53, dtype=torch.float32 if dtype is torch.bfloat16 else dtype)
        mask[rows] = nothing
    out = kernels.attend(query, key, value, False, None, mask)
    assert out is not None
    assert not out[..., rows, :].any()
    assert out[..., ~rows, :].all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("scale", [None, 0.0, -0.7])
def test_one_query_and_one_key_have_gradients(scale: float | None, is_causal: bool, dtype: torch.dtype) -> None:
    leaves = [learns(x[..., :1, :]) for x in three(dtype)]
    out = kernels.attend(*leaves, is_causal, scale)
    assert out is not None
    torch.testing.assert_close(out, leaves[2])
    grads = torch.autograd.grad((out * out).sum(), leaves)
    for grad, exact in zip(grads, (0 * leaves[0], 0 * leaves[1], 2 * leaves[2]), strict=True):
        assert_within(grad, exact.detach(), torch.finfo(dtype).eps, 4.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_first_number_of_0_or_1_is_detected(dtype: torch.dtype) -> None:
    for number, actual in ((0.0, True), (-0.0, True), (1.0, True), (-1.0, False), (0.5, False), (-torch.inf, False)):
        assert starts_with_0_or_1(torch.tensor([[9.0], [number]], dtype=dtype)[1:]) is actual


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # called by torch itself
@pytest.mark.parametrize("special", [{}, {"softcap": 3.0}, {"is_causal": True}], ids=str)
def test_tangents_of_forward_mode_are_propagated(special: dict[str, Any]) -> None:
    query, key, value = (x.double() for x in three())
    step = torch.randn_like(query)
    with forward_ad.dual_level():
        out = attention(forward_ad.make_dual(query.float(), step.float()), key.float(), value.float(), **special)
        tangent = forward_ad.unpack_dual(out).tangent
    ahead, behind = (attention(query + 1e-5 * sign * step, key, value, **special) for sign in (1, -1))
    assert_within(tangent, (ahead - behind) / 2e-5, torch.finfo(torch.float32).eps, 64.0)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # called by torch itself
def test_a_masks_tangent_is_propagated() -> None:
    query, key, value = three()
    with forward_ad.dual_level():
        mask = forward_ad.make_dual(torch.zeros(37, 53), torch.randn(37, 53))
        tangent = forward_ad.unpack_dual(attention(query, key, value, mask)).tangent
    assert tangent is not None


# The same numbers, with their negatives in memory: a part of a complex tensor, and one with contiguous rows.
NEGATED: dict[str, Callable[[Tensor], Tensor]] = {
    "imaginary": lambda x: torch.complex(torch.zeros_like(x), -x).conj().imag,
    "contiguous": lambda x: torch._neg_view(-x),
}


@pytest.mark.parametrize("negated", NEGATED.values(), ids=NEGATED)
@pytest.mark.parametrize("which", ["query", "key", "value", "mask", "gradient"])
@pytest.mark.parametrize("special", [{}, {"softcap": 3.0}], ids=str)
def test_a_negated_tensor_is_read_correctly(
    which: str, special: dict[str, Any], negated: Callable[[Tensor], Tensor]
) -> None:
    tensors = dict(zip(("query", "key", "value"), three(), strict=True), mask=torch.randn(37, 53))
    gradient = torch.randn(2, 3, 37, 11)
    actual = []
    for change in (lambda x: x, negated):
        used = {name: change(x) if name == which else x for name, x in tensors.items()}
        query = used["query"].detach().requires_grad_()
        out = attention(query, used["key"], used["value"], used["mask"], **special)
        held = change(gradient) if which == "gradient" else gradient
        actual.append((out, *torch.autograd.grad(out, query, held)))
    assert negated(gradient).is_neg()
    torch.testing.assert_close(negated(gradient), gradient, rtol=0, atol=0)
    for plain, other in zip(*actual, strict=True):
        torch.testing.assert_close(other, plain)
