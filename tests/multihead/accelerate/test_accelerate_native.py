"""The C++ kernels of `accelerate`: a call runs on torch's kernel or ours without entering Python."""

import math
import signal
import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as F

import clearhead
from clearhead.kernels.measured.costs import LOOK, MARGIN
from clearhead.kernels.native import cpu_targets
from clearhead.kernels.native.library import library
from clearhead.multihead import acceleration, torch_overrides

from .attention_calls import DTYPES, OURS, B, D, H, L, S, inputs, masks, needs_native, not_on_tiles, with_gradients

pytestmark = [
    needs_native,
    pytest.mark.skipif(sys.platform != "linux", reason="the C++ kernels are registered on Linux only"),
    pytest.mark.skipif(cpu_targets.is_forced(), reason="CLEARHEAD_KERNEL_TARGET sends every call to our kernel"),
]
FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


def test_this_torch_has_the_interface():
    with clearhead.accelerate():
        assert acceleration._installation._overrides.is_native


@pytest.mark.usefixtures("without_python")
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("mask", ["none", "causal", "bool", "float"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_calls_that_torch_computes_faster_run_on_its_kernel_without_python(dtype, mask, scale, costs):
    length, keys = 3, 5
    costs(900.0, 0.0)
    tensors, upstream = inputs(dtype, length=length, keys=keys), torch.randn(B, H, length, D).to(dtype)
    call = {"scale": scale, **masks(mask, dtype)[0]}
    if "attn_mask" in call:
        call["attn_mask"] = call["attn_mask"][..., :length, :keys]
    stock = with_gradients(F.scaled_dot_product_attention, tensors, upstream, **call)
    with clearhead.accelerate() as accelerated:
        same = with_gradients(F.scaled_dot_product_attention, tensors, upstream, **call)
    assert accelerated.counts == {"forward": 0, "backward": 0, "module": 0, "torch": 2}
    assert all(map(torch.equal, same, stock))


@pytest.fixture
def without_python_for_torch(monkeypatch):
    """Fails a call that enters a Python override only to run on torch's kernel."""

    def refuse(*_arguments, **_options):
        raise AssertionError("a Python override ran torch's kernel")

    monkeypatch.setattr(torch_overrides.Overrides, "_torch", refuse)


TORCHS = {**OURS, "forward": 0, "backward": 0, "torch": 2}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("length", [3, 67])
@pytest.mark.usefixtures("without_python")
@not_on_tiles
def test_the_plans_costs_decide(dtype, length, costs):
    tensors, upstream = inputs(dtype, length=length, keys=length), torch.randn(B, H, length, D).to(dtype)
    # Torch's kernel is looked for, too.
    for microseconds, counts in (
        ((0.0, 900.0), OURS),
        ((900.0, 0.0), TORCHS),
        ((LOOK - 1, 0.0), OURS),
        ((LOOK + 1, 0.0), TORCHS),
    ):
        costs(*microseconds)
        with clearhead.accelerate() as accelerated:
            with_gradients(F.scaled_dot_product_attention, tensors, upstream)
        assert accelerated.counts == counts


@pytest.mark.usefixtures("without_python_for_torch")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_pass_through_python_must_also_save_what_python_takes(dtype, costs):
    tensors, upstream = inputs(dtype), torch.randn(B, H, L, D).to(dtype)
    bias = torch.zeros(L, S, dtype=dtype)  # Python finds its empty rows in the backward pass
    python = torch_overrides.THROUGH_PYTHON - LOOK
    for torchs, backward in ((python / MARGIN - 1, 0), (python / MARGIN + 1, 1)):
        costs(0.0, torchs)
        with clearhead.accelerate() as accelerated:
            with_gradients(F.scaled_dot_product_attention, tensors, upstream, attn_mask=bias)
        assert accelerated.counts["backward"] == backward


@pytest.mark.usefixtures("without_python_for_torch")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_without_costs_few_multiply_adds_go_to_torch(dtype, costs):
    costs(None, None)
    least = math.ceil((torch_overrides._few(dtype) / (2 * B * H * D)) ** 0.5)
    for length, torchs in ((least - 1, 2), (least, 0)):
        tensors, upstream = inputs(dtype, length=length, keys=length), torch.randn(B, H, length, D).to(dtype)
        with clearhead.accelerate() as accelerated:
            with_gradients(F.scaled_dot_product_attention, tensors, upstream)
        assert accelerated.counts["torch"] == torchs


@pytest.mark.parametrize("learner", range(3))
def test_a_gradient_of_any_input_counts_and_none_goes_to_our_kernel(learner, costs):
    costs(900.0, 0.0)
    tensors = inputs(learn=False)
    with clearhead.accelerate() as accelerated:
        F.scaled_dot_product_attention(*tensors)
        assert accelerated.counts["forward"] == 1
        tensors[learner].requires_grad_()
        F.scaled_dot_product_attention(*tensors)
        assert accelerated.counts == {"forward": 1, "backward": 0, "module": 0, "torch": 1}
        with torch.no_grad():
            F.scaled_dot_product_attention(*tensors)
        assert accelerated.counts["forward"] == 2


def test_a_wrong_answer_about_gradients_is_noticed(costs):
    """The kernel reads it from a handle, which this torch allows; otherwise it asks Python, which takes 2 µs."""
    handle = torch._C._aoti.unsafe_alloc_void_ptr_from_tensor
    plain, learning = torch.empty(1), torch.empty(1, requires_grad=True)
    with clearhead.accelerate():
        try:
            assert not library.read_requires_grad(handle(learning), handle(plain))
            test_a_gradient_of_any_input_counts_and_none_goes_to_our_kernel(0, costs)  # Python is asked
        finally:
            assert library.read_requires_grad(handle(plain), handle(learning))


def test_a_forced_target_computes_few_tokens_with_gradients():
    tensors, upstream = inputs(), torch.ones(B, H, L, D)
    with clearhead.accelerate() as accelerated, cpu_targets.target("generic"):
        with_gradients(F.scaled_dot_product_attention, tensors, upstream)
    assert accelerated.counts == {"forward": 1, "backward": 1, "module": 0, "torch": 0}


@pytest.mark.parametrize("is_on", [True, False])
@pytest.mark.parametrize("call", ["three axes", "int", "another head_dim", "dropout", "mask of another dtype"])
def test_errors_of_torchs_operator_keep_their_message(call, is_on, capfd):
    query, key, value = inputs(learn=False)
    arguments, options = {
        "three axes": ((query[0], key[0], value[0]), {}),
        "int": ((query.int(), key.int(), value.int()), {}),
        "another head_dim": ((query, key[..., :3], value), {}),
        "dropout": ((query, key, value, 0.5), {}),
        "mask of another dtype": ((query, key, value), {"attn_mask": torch.ones(L, S, dtype=torch.int64)}),
    }[call]
    with pytest.raises(RuntimeError) as stock:
        FLASH(*arguments, **options)
    accelerated = clearhead.accelerate()
    if not is_on:
        accelerated.undo()
    try:
        with pytest.raises(RuntimeError) as ours:
            FLASH(*arguments, **options)
    finally:
        accelerated.undo()
    assert str(ours.value).partition("\n")[0] == str(stock.value).partition("\n")[0]
    assert capfd.readouterr().err == ""


def test_an_interrupt_inside_the_python_override_is_raised(monkeypatch):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    def call():
        try:
            F.scaled_dot_product_attention(*inputs(learn=False))
        except RuntimeError:
            for _ in range(1000):  # Python looks for signals between two rounds
                pass

    monkeypatch.setattr(torch_overrides, "match", interrupted)
    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process that runs tests may ignore it
    try:
        # A forced target goes through Python.
        with clearhead.accelerate(), cpu_targets.target("generic"), pytest.raises(KeyboardInterrupt):
            call()
    finally:
        signal.signal(signal.SIGINT, former)


@pytest.mark.parametrize("learn", [True, False])
@pytest.mark.parametrize("forced", [True, False])
def test_no_call_keeps_a_tensor(learn, forced):
    """Torch's function that wraps a handle for Python copies it, and the kernel deletes what torch gave it."""
    tensors, mask = inputs(learn=learn), torch.zeros(L, S)
    before = [tensor._use_count() for tensor in (*tensors, mask)]
    with clearhead.accelerate():
        for _ in range(3):
            if forced:
                with cpu_targets.target("generic"):
                    out = F.scaled_dot_product_attention(*tensors, mask, scale=0.3)
            else:
                out = F.scaled_dot_product_attention(*tensors, mask, scale=0.3)
            if learn:
                grads = torch.autograd.grad(out, tensors, torch.ones_like(out))
                assert [grad._use_count() for grad in grads] == [1, 1, 1]
    del out
    assert [tensor._use_count() for tensor in (*tensors, mask)] == before


def test_counts_are_exact_with_threads(costs):
    costs(900.0, 0.0)
    tensors, upstream = inputs(), torch.ones(B, H, L, D)

    def work():
        for _ in range(20):
            with_gradients(F.scaled_dot_product_attention, tensors, upstream)

    with clearhead.accelerate() as accelerated:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert accelerated.counts == {"forward": 0, "backward": 0, "module": 0, "torch": 2 * 20 * 3}
    with clearhead.accelerate() as later:
        pass
    assert sum(later.counts.values()) == 0


CHANGED = """
import torch
import torch.nn.functional as F
import clearhead
from clearhead.multihead import acceleration, torch_overrides
torch_overrides.SCHEMAS[torch_overrides.BACKWARD] += ", Tensor another"
q = torch.randn(1, 2, 3, 5, requires_grad=True)
with clearhead.accelerate() as accelerated:
    F.scaled_dot_product_attention(q, q, q).sum().backward()
    with torch.no_grad():
        F.scaled_dot_product_attention(q, q, q)
print(acceleration._installation._overrides.is_native, accelerated.counts)
"""


@pytest.mark.slow
def test_where_torch_has_other_operators_the_python_overrides_are_registered():
    done = subprocess.run([sys.executable, "-c", CHANGED], capture_output=True, text=True, check=True)
    assert done.stdout == "False {'forward': 1, 'backward': 0, 'module': 0, 'torch': 2}\n"
    assert "Overriding" not in done.stderr


@pytest.mark.slow
def test_registering_writes_no_warning():
    program = "import clearhead; clearhead.accelerate()"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
