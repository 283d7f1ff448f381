"""clearhead.accelerate with models, compilers, transforms, subprocesses and torch's own samples."""

import os
import subprocess
import sys
import types
import unittest
import warnings

import pytest
import torch
import torch.nn.functional as F

import clearhead
import fresh
import reference

from .attention_calls import (
    DTYPES,
    B,
    D,
    H,
    L,
    inputs,
    masks,
    needs_native,
    own_kernels,
    with_gradients,
    without_python,
)

__all__ = ["own_kernels"]  # a fixture that each test uses
pytestmark = [needs_native, without_python]


@pytest.mark.slow
def test_a_bert_and_a_llama_run_train_and_generate():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    small = {"vocab_size": 31, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2}
    ids = torch.randint(1, 31, (2, 9), generator=torch.Generator().manual_seed(0))
    padding = torch.ones_like(ids)
    padding[0, 6:] = 0
    bert = transformers.BertModel(
        transformers.BertConfig(**small, num_attention_heads=4, attn_implementation="sdpa")
    ).eval()
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**small, num_attention_heads=4, num_key_value_heads=2, attn_implementation="sdpa")
    ).eval()
    for model in (bert, llama):

        def run(model=model):
            out = model(ids, attention_mask=padding)[0]
            model.zero_grad()
            out.square().mean().backward()
            return out.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

        stock = run()
        with clearhead.accelerate() as accelerated:
            ours = run()
        assert accelerated.counts == {"forward": 2, "backward": 2, "module": 0, "torch": 0}
        torch.testing.assert_close(ours, stock, rtol=1e-4, atol=1e-5)
    options = {"min_new_tokens": 5, "max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    stock = llama.generate(ids, **options)
    with clearhead.accelerate() as accelerated:
        assert torch.equal(llama.generate(ids, **options), stock)
    assert accelerated.counts["forward"] == 10
    assert accelerated.counts["torch"] == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # by torch's own compiler
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.stress)])
def test_a_compiled_program_is_accelerated_and_stays_correct_after_undo(backend):
    tensors, upstream = inputs(), torch.randn(B, H, L, D)
    allow = masks("bool", torch.float32)[0]["attn_mask"]
    if backend == "inductor" and not any(map(os.path.exists, ("/usr/bin/g++", "/usr/bin/c++", "/usr/bin/clang++"))):
        pytest.skip("inductor needs a C++ compiler")
    torch.compiler.reset()
    compiled = torch.compile(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, allow).sin(), backend=backend)
    exact = with_gradients(lambda *t: reference.attention(*t, allow=allow, scale=D**-0.5)[0].sin(), tensors, upstream)
    for _ in range(2):
        with clearhead.accelerate() as accelerated:
            ours = with_gradients(compiled, tensors, upstream)
        assert accelerated.counts["forward"] == accelerated.counts["backward"] == 1
        for mine, truth in zip((*ours, *with_gradients(compiled, tensors, upstream)), (*exact, *exact), strict=True):
            assert (mine - truth).abs().amax() <= 64 * torch.finfo(torch.float32).eps
    torch.compiler.reset()


def test_export_autocast_vmap_grad_and_inference_mode_are_accelerated():
    query, key, value = inputs(learn=False, keys=L)

    class Model(torch.nn.Module):
        def forward(self, q, k, v):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    exact = reference.attention(query, key, value, scale=D**-0.5, is_causal=True)[0].float()
    with clearhead.accelerate() as accelerated:
        exported = torch.export.export(Model(), (query, key, value)).module()
        before = accelerated.counts["forward"]
        torch.testing.assert_close(exported(query, key, value), exact, rtol=1e-5, atol=1e-5)
        assert accelerated.counts["forward"] == before + 1
        with torch.autocast("cpu", torch.bfloat16):
            out = Model()(query, key, value)
        assert out.dtype is torch.bfloat16
        assert accelerated.counts["forward"] == before + 2
        torch.testing.assert_close(out.float(), exact, rtol=0.02, atol=0.02)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch has no batching rule, so it loops
            stacked = [torch.stack([t, 2 * t]) for t in (query, key, value)]
            mapped = torch.vmap(Model())(*stacked)
        assert accelerated.counts["forward"] == before + 4
        for each, tensors in zip(mapped, zip(*stacked, strict=True), strict=True):
            truth = reference.attention(*tensors, scale=D**-0.5, is_causal=True)[0].float()
            torch.testing.assert_close(each, truth, rtol=1e-5, atol=1e-5)
        torch.func.grad(lambda q: Model()(q, key, value).sum())(query)
        assert accelerated.counts["backward"] == 1
        with torch.device("cpu"), torch.inference_mode():
            Model()(query, key, value)
        assert accelerated.counts["forward"] == before + 6
        assert accelerated.counts["torch"] == 0
        meta = Model()(*(t.to("meta") for t in (query, key, value)))
        assert meta.shape == exact.shape


sys.modules.setdefault("expecttest", types.SimpleNamespace(TestCase=unittest.TestCase))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_torchs_sample_inputs(dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own test modules warn on import
        from torch.testing._internal.common_methods_invocations import op_db
    info = next(op for op in op_db if op.name == "nn.functional.scaled_dot_product_attention")
    taken = 0
    for sample in info.sample_inputs("cpu", dtype, requires_grad=True):

        def run(convert, sample=sample):
            torch.manual_seed(0)
            tensors = [convert(tensor) for tensor in (sample.input, *sample.args)]
            options = {name: convert(value) for name, value in sample.kwargs.items()}
            return with_gradients(F.scaled_dot_product_attention, tensors, torch.ones(()), **options)

        stock = run(lambda value: value)
        with clearhead.accelerate() as accelerated:
            ours = run(lambda value: value)
        if not accelerated.counts["forward"]:
            assert all(map(torch.equal, ours, stock))
            continue
        taken += 1
        exact = run(lambda value: value.detach().double().requires_grad_() if torch.is_tensor(value) else value)
        # The samples are in [-9, 9]; float64 is compared with torch's own float64, whose error is as large as ours.
        floor = 16 * torch.finfo(dtype).eps * {torch.float64: 480, torch.float32: 20}.get(dtype, 2)
        for mine, theirs, truth in zip(ours, stock, exact, strict=True):
            assert (mine - truth).abs().amax() <= 2 * (theirs - truth).abs().amax() + floor
    assert taken >= 4  # the others have three axes, dropout or a mask that learns


def python(program, **environment):
    done = fresh.run(program, environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def environment_alone(program):
    """Run a program with CLEARHEAD_ACCELERATE=1 in a process that has imported nothing; return its words and errors."""
    environment = {**os.environ, "CLEARHEAD_ACCELERATE": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    return done.stdout.split(), done.stderr


COUNT = (
    "import torch.nn.functional as F; q = torch.ones(1, 2, 3, 5); F.scaled_dot_product_attention(q, q, q); "
    "from clearhead.multihead.acceleration import _installation as i; i.count(); "
    "print(i._users, sum(i._overrides.counts.values()))"
)


@pytest.mark.slow
def test_the_environment_turns_it_on_when_clearhead_is_imported_after_torch():
    assert python(f"import torch, clearhead; {COUNT}", CLEARHEAD_ACCELERATE="1") == (["1", "1"], "")


@pytest.mark.slow
def test_the_environment_turns_it_on_when_clearhead_is_imported_first():
    assert environment_alone(f"import clearhead, torch; {COUNT}") == (["1", "1"], "")


# A module of ours is what imports torch, and acceleration imports that module.
@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "clearhead.attention",
        "clearhead.kernels",
        "clearhead.AttentionMatrix",
        pytest.param("clearhead.masks", marks=pytest.mark.stress),
        pytest.param("clearhead.accelerate().undo()", marks=pytest.mark.stress),
        pytest.param("import clearhead.spec", marks=pytest.mark.stress),
        pytest.param("import clearhead.kernels.native.library", marks=pytest.mark.stress),
        pytest.param("from clearhead.multihead import torch_overrides", marks=pytest.mark.stress),
    ],
)
def test_the_environment_turns_it_on_when_clearhead_imports_torch(first):
    assert environment_alone(f"import clearhead; {first}; import torch; {COUNT}") == (["1", "1"], "")


@pytest.mark.slow
def test_a_failed_import_of_ours_does_not_prevent_acceleration():
    program = f"""
import sys, clearhead
sys.modules["clearhead.distributed.ring"] = None
try:
    import clearhead.distributed
except ImportError:
    import torch
    {COUNT}
"""
    assert environment_alone(program) == (["1", "1"], "")


@pytest.mark.slow
def test_an_unknown_target_in_the_environment_does_not_fail_an_import():
    show = "from clearhead.multihead.acceleration import _installation as i; print(i._users)"
    printed, warned = python(
        f"import torch, clearhead; {show}", CLEARHEAD_ACCELERATE="1", CLEARHEAD_KERNEL_TARGET="quantum"
    )
    assert printed == ["0"]
    assert "CLEARHEAD_ACCELERATE=1 has no effect: there is no kernel target 'quantum'" in warned


@pytest.mark.slow
def test_an_unknown_value_of_the_environment_variable_is_ignored_with_a_warning():
    show = "import clearhead, torch; from clearhead.multihead.acceleration import _installation as i; print(i._users)"
    assert python(show, CLEARHEAD_ACCELERATE="0") == (["0"], "")
    printed, warned = python(show, CLEARHEAD_ACCELERATE="yes")
    assert printed == ["0"]
    assert "CLEARHEAD_ACCELERATE='yes' is ignored" in warned


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_is_accelerated_and_undo_affects_only_it():
    program = """
import os, torch, clearhead, torch.nn.functional as F
torch.set_num_threads(1)
q = torch.randn(1, 2, 5, 8)
accelerated = clearhead.accelerate()
out = F.scaled_dot_product_attention(q, q, q)
child = os.fork()
if child == 0:
    same = torch.equal(F.scaled_dot_product_attention(q, q, q), out)
    accelerated.undo()
    os._exit(0 if same and sum(accelerated.counts.values()) == 2 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), accelerated.is_active, sum(accelerated.counts.values()))
"""
    assert python(program)[0] == ["0", "True", "1"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_may_be_forked_while_another_thread_switches_acceleration():
    program = """
import os, signal, threading, torch, clearhead
from clearhead.multihead import acceleration
held, free = threading.Event(), threading.Event()
def switch():
    with acceleration._lock:
        held.set()
        free.wait(0.2)
thread = threading.Thread(target=switch)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    clearhead.accelerate().undo()
    os._exit(0)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), acceleration._installation._users)
"""
    assert python(program)[0] == ["0", "0"]
