"""`match` answers for any arguments at all, and follows costs, threads and targets that change between two calls."""

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import clearhead
from clearhead import kernels
from clearhead.errors import DtypeError
from clearhead.kernels import fast_path, plan
from clearhead.kernels.measured import cpu_classes, figures
from clearhead.kernels.measured.costs import torch_saves
from clearhead.kernels.measured.tasks import CALLS, Cost, Costs
from clearhead.kernels.native import cpu_targets
from clearhead.kernels.native.library import library
from clearhead.kernels.portable.torch_sdpa import flash_runs

from ..targets import needs_native

pytestmark = needs_native
FREE, DEAR = Cost(0.0, 0.0, 0.0), Cost(900.0, 0.0, 0.0)
DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64) if flash_runs(dtype)]
TORCH_FASTER: Costs = {(calls.task, dtype): (DEAR, FREE) for calls in CALLS for dtype in DTYPES}


@pytest.fixture(autouse=True)
def own_costs(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[None]:
    """No figures of this machine, no class of CPUs, and no target forced."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(figures.VARIABLE, raising=False)
    monkeypatch.delenv(cpu_targets.VARIABLE, raising=False)
    monkeypatch.setattr(cpu_classes, "CLASSES", ())
    plan.forget()
    yield
    monkeypatch.undo()
    plan.forget()


def three(*shape: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    make = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=make).to(dtype) for _ in range(3)]


def matched(tensors: list[Tensor], **options: Any) -> int:
    call = {"is_causal": False, "scale": None, "mask": None, "grouped": False} | options
    return plan.match(*tensors, **call)


def measure(costs: Costs) -> None:
    """Do what `clearhead tune` does at its end."""
    figures.save(costs)
    plan.forget()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_each_answer(dtype: torch.dtype) -> None:
    plain, learning = three(2, 3, 5, 7, dtype=dtype), [x.requires_grad_() for x in three(2, 3, 5, 7, dtype=dtype)]
    nothing = [x[:, :, :0] for x in plain]
    assert [matched(x) for x in (plain, learning, nothing)] == [plan.NATIVE, plan.NATIVE_GRADIENTS, plan.NO_MATCH]
    with torch.no_grad():
        assert matched(learning) == plan.NATIVE
    assert matched(plain, learns=True) == plan.NATIVE_GRADIENTS
    assert matched(learning, learns=False) == plan.NATIVE
    assert matched(learning, with_lse=True) == plan.NO_MATCH
    measure(TORCH_FASTER)
    assert [matched(x) for x in (plain, learning, nothing)] == [plan.TORCH_FASTER, plan.TORCH_FASTER, plan.NO_MATCH]
    assert matched(plain, is_causal=True, scale=-1.0) == plan.NO_MATCH  # torch forgets the mask, and ours is dear
    mask = torch.ones(5, 5, dtype=torch.bool)
    assert [matched(x, mask=mask) for x in (plain, learning)] == [plan.NO_MATCH, plan.TORCH_FASTER]
    row_of_nan = mask & (torch.arange(5) != 3)[:, None]  # in torch, so it cannot take the call
    assert matched(learning, mask=row_of_nan) == plan.NATIVE_GRADIENTS  # described, both backward passes are Python
    assert matched(learning, mask=mask[:1].expand(5, 5)) == plan.TORCH_FASTER
    assert matched(learning, mask=torch.zeros(5, 5, dtype=dtype, requires_grad=True)) == plan.NO_MATCH


def test_a_measured_saving_describes_no_call_with_gradients() -> None:
    # Described, both kernels' backward passes are Python: on a Skylake Xeon such calls took 900 µs instead of 320.
    measure(TORCH_FASTER)
    learning = [x.requires_grad_() for x in three(2, 3, 1, 5)]
    assert matched(learning, mask=torch.full((3, 1, 1), 2.0)) == plan.NATIVE_GRADIENTS
    assert matched(learning, is_causal=True, scale=-1.0) == plan.NATIVE_GRADIENTS
    assert clearhead.kernels.explain(*learning, return_lse=True).kernel == "native"
    with torch.no_grad():
        assert clearhead.kernels.explain(*learning, return_lse=True).kernel == "torch"


LOWER = torch.ones(5, 5, dtype=torch.bool).tril()
MASKS = {
    "none": None,
    "causal": None,
    "bool": LOWER,
    "bool, columns first": LOWER.mT.contiguous().mT,
    "bool, one row": LOWER[3:4].expand(5, 5),
    "bool of a batch": torch.stack([LOWER, ~LOWER | torch.eye(5, dtype=torch.bool)])[:, None],
    "numbers": torch.linspace(-2, 1, 25).view(5, 5),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("mask", MASKS)
def test_where_torch_is_faster_its_own_function_and_node_run(
    dtype: torch.dtype, scale: float | None, mask: str
) -> None:
    measure(TORCH_FASTER)
    leaves = [x.requires_grad_() for x in three(2, 3, 5, 7, dtype=dtype)]
    given = MASKS[mask].to(dtype) if mask == "numbers" else MASKS[mask]
    call: dict[str, Any] = {"attn_mask": given, "is_causal": mask == "causal", "scale": scale}
    ours, stock = (attend(*leaves, **call) for attend in (clearhead.attention, F.scaled_dot_product_attention))
    assert type(ours.grad_fn) is type(stock.grad_fn)
    assert torch.equal(ours, stock)
    grads = [torch.autograd.grad(out.sum(), leaves) for out in (ours, stock)]
    assert all(map(torch.equal, *grads))


def test_torchs_error_is_raised() -> None:
    measure(TORCH_FASTER)

    def refuse(*_call: Any) -> None:
        raise ValueError("no memory")

    library.register_attention(refuse, torch.empty_like)
    try:
        with pytest.raises(ValueError, match="no memory"):
            clearhead.attention(*three(2, 3, 5, 7))
    finally:
        library.register_attention(fast_path._flash, torch.empty_like)


def test_torch_computes_a_negated_view() -> None:
    measure(TORCH_FASTER)
    query, key, value = three(2, 3, 5, 7, dtype=torch.float64)
    negated = torch._neg_view(-key)
    assert negated.is_neg()
    assert matched([query, negated, value]) == plan.TORCH_FASTER
    assert torch.equal(clearhead.attention(query, negated, value), clearhead.attention(query, key, value))


@pytest.mark.parametrize("name", ["query", "key", "value", "mask", "grouped", "scale"])
@pytest.mark.parametrize("argument", [None, 1, "x", (), torch.ones(2), object()], ids=lambda x: type(x).__name__)
def test_an_argument_of_any_kind_is_answered(name: str, argument: Any) -> None:
    query, key, value = three(2, 3, 5, 7)
    call: dict[str, Any] = {"query": query, "key": key, "value": value, "is_causal": False, "scale": None}
    call |= {"mask": None, "grouped": False, name: argument}
    fits = argument is None and name in ("mask", "scale")
    assert plan.match(**call) == (plan.NATIVE if fits else plan.NO_MATCH)


def test_a_truth_of_several_numbers_is_refused() -> None:
    with pytest.raises(DtypeError, match="is_causal is a Tensor, expected True or False"):
        clearhead.attention(*three(1, 2, 5, 7), is_causal=torch.tensor([True, False]))


def test_grouped_heads_by_another_truth() -> None:
    query, key, value = three(1, 4, 5, 7)
    call = query, key[:, :2], value[:, :2]
    assert torch.equal(clearhead.attention(*call, enable_gqa=1), clearhead.attention(*call, enable_gqa=True))


def test_numbers_are_never_read() -> None:
    """NaN of any bits, infinities: they change the output, and not the way to it."""
    bits = torch.tensor([0x7FC00000, 0x7F800001, -1, -0x400000, 0x7F800000], dtype=torch.int32).view(torch.float32)
    tensors = [bits[:, None].expand(2, 3, 5, 7).contiguous() for _ in range(3)]
    assert matched(tensors) == plan.NATIVE
    assert matched(tensors, scale=torch.nan) == plan.NATIVE
    assert clearhead.attention(*tensors).isnan().all()
    measure(TORCH_FASTER)
    assert matched(tensors, is_causal=True, scale=torch.nan) == plan.TORCH_FASTER


@pytest.mark.parametrize("threads", [1, 7])
def test_sizes_that_overflow_an_integer_are_costs(threads: int) -> None:
    row = torch.zeros(7)
    tensors = [row.expand(3, 5, 2**50, 7) for _ in range(3)]  # 2^50 queries and keys: 2^106 multiply-adds
    assert matched(tensors) == plan.NATIVE
    measure({("forward", torch.float32): (Cost(0.0, 0.0, 2.0), Cost(0.0, 0.0, 1.0))})
    assert matched(tensors) == plan.TORCH_FASTER
    saved = torch_saves(torch.float32, False, (3, 5, 2**50, 7), 2**50, threads)
    assert saved == pytest.approx(0.97 * 2.0 * 15 * 7 * 2.0**100 / threads / 1e6)


def test_threads_that_change_between_calls_are_counted() -> None:
    """Eight heads are eight of one thread, and one of eight threads."""
    measure({("forward", torch.float32): (Cost(0.0, 10.0, 0.0), Cost(30.0, 0.0, 0.0))})
    tensors, before = three(1, 8, 37, 5), torch.get_num_threads()
    try:
        answers = []
        for threads in (1, 8, 1):
            torch.set_num_threads(threads)
            answers.append(matched(tensors))
    finally:
        torch.set_num_threads(before)
    assert answers == [plan.TORCH_FASTER, plan.NATIVE, plan.TORCH_FASTER]


def test_figures_that_appear_count_once_they_are_asked_for() -> None:
    tensors = three(1, 2, 37, 5)
    assert matched(tensors) == plan.NATIVE
    figures.save(TORCH_FASTER)
    assert matched(tensors) == plan.NATIVE
    assert kernels.explain(*tensors).path == plan.FAST_PATH
    plan.forget()
    assert matched(tensors) == plan.TORCH_FASTER
    assert kernels.explain(*tensors).path == plan.TORCH_FUNCTION


def test_a_forced_target_is_never_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = three(1, 2, 37, 5)
    measure(TORCH_FASTER)
    assert matched(tensors) == plan.TORCH_FASTER
    with kernels.target("generic"):
        assert matched(tensors) == plan.NATIVE
    assert matched(tensors) == plan.TORCH_FASTER
    monkeypatch.setenv(cpu_targets.VARIABLE, "generic")
    plan.forget()
    assert matched(tensors) == plan.NATIVE


def test_costs_may_be_replaced_while_other_threads_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, ends = three(1, 2, 37, 5), threading.Event()
    expected = clearhead.attention(*tensors)
    answers: set[int] = set()

    def call() -> None:
        while not ends.is_set():
            answers.add(matched(tensors))
            torch.testing.assert_close(clearhead.attention(*tensors), expected, atol=1e-5, rtol=1e-5)

    dear = cpu_classes.CpuClass("ours is dear", frozenset(), TORCH_FASTER)
    with ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(call) for _ in range(3)]
        for turn in range(200):
            monkeypatch.setattr(cpu_classes, "CLASSES", (dear,) if turn % 2 else ())
            plan.forget()
            time.sleep(0)
        ends.set()
    for caller in callers:
        caller.result()
    assert answers <= {plan.NATIVE, plan.TORCH_FASTER}


def test_a_plain_call_enters_four_functions() -> None:
    """Those that docs/design.md lists: each takes a hundredth of a small attention's time."""
    tensors, entered = three(1, 2, 37, 5), []
    clearhead.attention(*tensors)

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            entered.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        clearhead.attention(*tensors)
    finally:
        sys.setprofile(before)
    assert entered == ["attention", "attend", "is_dynamo_compiling", "native_forward"]
