"""The fast path is not used where torch's dispatcher sees a call, whether the library reads its state or asks for it."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from clearhead import kernels
from clearhead.kernels.native.library import library, reads_dispatch_state

from ..targets import needs_native

pytestmark = needs_native


class Functions(TorchFunctionMode):
    pass


class Operators(TorchDispatchMode):
    pass


@pytest.fixture(params=[True, False], ids=["state read", "state asked"])
def dispatch_state(request: pytest.FixtureRequest) -> Iterator[None]:
    """The library reads torch's dispatch state, or asks Python for it."""
    library.read_dispatch_state(request.param)
    yield
    library.read_dispatch_state(reads_dispatch_state)


@pytest.mark.skipif(sys.platform != "linux", reason="the library looks for torch's variables on Linux only")
def test_this_torch_has_the_dispatch_state() -> None:
    assert reads_dispatch_state


@pytest.mark.usefixtures("dispatch_state")
@pytest.mark.parametrize("shape", [(1, 8, 1, 64), (2, 3, 37, 11)], ids=str)  # torch's function or our kernel
@pytest.mark.parametrize(
    "mode", [Functions, Operators, FakeTensorMode, lambda: torch.device("cpu"), lambda: torch.autocast("cpu")]
)
def test_the_fast_path_is_not_used_under_a_mode(mode: Callable[[], Any], shape: tuple[int, ...]) -> None:
    query = torch.ones(shape, requires_grad=True)
    with mode():
        assert kernels.attend(query, query, query, False, None) is None
    assert kernels.attend(query, query, query, False, None) is not None


@pytest.mark.usefixtures("dispatch_state")
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
@pytest.mark.parametrize("transform", ["vmap", "grad", "functionalize", "trace"])
def test_the_fast_path_is_not_used_inside_a_transform(transform: str) -> None:
    plain, seen = torch.ones(1, 8, 1, 64, requires_grad=True), []

    def attend(x: Tensor) -> Tensor:
        seen.append(kernels.attend(plain, plain, plain, False, None))
        return x.sum()

    transforms: dict[str, Callable[..., Any]] = {
        "vmap": torch.func.vmap,
        "grad": torch.func.grad,
        "functionalize": torch.func.functionalize,
        "trace": lambda function: lambda x: torch.jit.trace(function, x, check_trace=False),
    }
    transforms[transform](attend)(torch.ones(3))
    assert seen == [None]


@pytest.mark.usefixtures("dispatch_state")
def test_each_thread_has_a_dispatch_state_of_its_own() -> None:
    query = torch.ones(1, 8, 1, 64)
    with Operators(), ThreadPoolExecutor(1) as other:
        assert other.submit(kernels.attend, query, query, query, False, None).result() is not None
        assert kernels.attend(query, query, query, False, None) is None
