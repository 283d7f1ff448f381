"""The short way gives what the long way gives, and stands aside wherever somebody watches or something is special."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from clearhead import attention, kernels
from clearhead.kernels import Problem

pytestmark = pytest.mark.skipif(not kernels.targets(), reason="the native library was not built on this machine")


def three(dtype: torch.dtype = torch.float32, heads_apart: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    make = torch.Generator().manual_seed(0)
    sizes = ((2, 3, 37, 11), (2, 3, 53, 11), (2, 3, 53, 11))
    tensors = (torch.randn(size, generator=make).to(dtype) for size in sizes)
    query, key, value = (x if heads_apart else x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors)
    return query, key, value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("heads_apart", [True, False])
@pytest.mark.parametrize("is_causal", [True, False])
def test_it_gives_what_the_long_way_gives(dtype: torch.dtype, heads_apart: bool, is_causal: bool) -> None:
    query, key, value = three(dtype, heads_apart)
    out = kernels.attend(query, key, value, is_causal, None)
    long = kernels.run(Problem(query, key, value, 11**-0.5, is_causal=is_causal), kernel="native").out
    assert out is not None
    assert torch.equal(out, long)
    assert out.stride() == long.stride()
    assert torch.equal(attention(query, key, value, is_causal=is_causal), long)


def test_a_scale_is_heard() -> None:
    query, key, value = three()
    out = kernels.attend(query, key, value, False, 0.25)
    assert out is not None
    assert torch.equal(out, kernels.run(Problem(query, key, value, 0.25), kernel="native").out)


def learns(x: Tensor) -> Tensor:
    return x.clone().requires_grad_()


SPECIAL: dict[str, Callable[[Tensor], Tensor]] = {
    "a gradient": learns,
    "another dtype": lambda x: x.double(),
    "three axes": lambda x: x[0],
    "another width": lambda x: x[..., :7],
    "a parameter": torch.nn.Parameter,
    "one head": lambda x: x[:, :1],
    "a device of no data": lambda x: x.to("meta"),
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("which", [0, 1])
def test_it_stands_aside_for_what_is_special(name: str, which: int) -> None:
    tensors = list(three())
    tensors[which] = SPECIAL[name](tensors[which])
    assert kernels.attend(tensors[0], tensors[1], tensors[2], False, None) is None


class Functions(TorchFunctionMode):
    pass


class Operators(TorchDispatchMode):
    pass


@pytest.mark.parametrize("watch", [Functions, Operators, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_it_stands_aside_where_somebody_watches(watch: Callable[[], torch.autocast]) -> None:
    query, key, value = three()
    with watch():
        assert kernels.attend(query, key, value, False, None) is None


def test_it_stands_aside_inside_vmap() -> None:
    def seen(query: Tensor) -> Tensor:
        assert kernels.attend(query, query, query, False, None) is None
        return query

    torch.func.vmap(seen)(three()[0])


def test_what_would_learn_takes_it_where_gradients_are_off() -> None:
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", MASKS)
def test_a_mask_gives_what_the_long_way_gives(name: str, dtype: torch.dtype) -> None:
    query, key, value = three(dtype)
    torch.manual_seed(1)
    mask = MASKS[name]()
    allow = mask if mask.dtype == torch.bool else None
    bias = None if allow is not None else mask.to(dtype)
    out = kernels.attend(query, key, value, False, None, mask if bias is None else bias)
    long = kernels.run(Problem(query, key, value, 11**-0.5, allow=allow, bias=bias), kernel="native").out
    assert out is not None
    assert torch.equal(out, long)


def test_a_mask_it_does_not_know_goes_the_long_way() -> None:
    query, key, value = three()
    for mask in (torch.ones(53), torch.ones(53, 37), torch.randn(37, 53).double(), learns(torch.randn(37, 53))):
        assert kernels.attend(query, key, value, False, None, mask) is None
    assert kernels.attend(query, key, value, True, None, torch.ones(37, 53) == 1) is None
