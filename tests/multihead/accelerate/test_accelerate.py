"""clearhead.accelerate: torch's attention runs on our kernels, and on torch's again after undo."""

import copy
import pickle
import threading

import pytest
import torch
import torch.nn.functional as F

import clearhead
import reference
from clearhead.errors import KernelError
from clearhead.kernels import plan
from clearhead.kernels.portable import torch_sdpa
from clearhead.multihead import acceleration, torch_overrides

from .attention_calls import (
    DTYPES,
    B,
    D,
    H,
    L,
    S,
    inputs,
    masks,
    needs_native,
    own_kernels,
    through_python,
    with_gradients,
)

__all__ = ["own_kernels"]  # a fixture that each test uses
pytestmark = needs_native


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("mask", ["none", "causal", "bool", "float"])
@pytest.mark.parametrize("kv_heads", [H, 2, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_our_kernels_run_and_equal_the_float64_reference(dtype, kv_heads, mask, scale):
    tensors = inputs(dtype, kv_heads)
    upstream = torch.randn(B, H, L, D, generator=torch.Generator().manual_seed(2)).to(dtype)
    options, described = masks(mask, dtype)
    call = {"enable_gqa": kv_heads != H, "scale": scale, **options}
    theirs = with_gradients(F.scaled_dot_product_attention, tensors, upstream, **call)
    with clearhead.accelerate() as accelerated:
        ours = with_gradients(F.scaled_dot_product_attention, tensors, upstream, **call)
    assert accelerated.counts == {"forward": 1, "backward": 1, "module": 0, "torch": 0}
    described = {"scale": D**-0.5 if scale is None else scale, **described}
    exact = with_gradients(reference.attention, tensors, upstream, **described)
    for mine, stock, truth in zip(ours, theirs, exact, strict=True):
        assert (mine.dtype, mine.shape, mine.stride()) == (stock.dtype, stock.shape, stock.stride())
        floor = 16 * torch.finfo(dtype).eps
        assert (mine - truth).abs().amax() <= 2 * (stock - truth).abs().amax() + floor


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_operators_lse_equals_torchs(dtype):
    query, key, value = inputs(dtype, learn=False)
    bias = torch.zeros(L, S, dtype=dtype)
    bias[3] = -torch.inf
    operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    theirs = operator(query, key, value, attn_mask=bias)[1]
    with clearhead.accelerate() as accelerated:
        ours = operator(query, key, value, attn_mask=bias)[1]
    assert accelerated.counts["forward"] == 1
    assert (ours.dtype, ours.shape, ours.stride()) == (theirs.dtype, theirs.shape, theirs.stride())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert ours[:, :, 3].abs().max() == 0


@pytest.mark.parametrize("forward_accelerated", [True, False])
@pytest.mark.parametrize("keys", [1, S])
def test_acceleration_may_begin_or_end_between_forward_and_backward(forward_accelerated, keys):
    tensors = inputs(keys=keys)
    tensors[1].data[:, :, 0] = 0  # with one key, a nonempty row may have an lse of 0
    allow, upstream = masks("bool", torch.float32)[0]["attn_mask"][..., :keys], torch.randn(B, H, L, D)
    accelerated = clearhead.accelerate()
    if not forward_accelerated:
        accelerated.undo()
    out = F.scaled_dot_product_attention(*tensors, allow)
    with clearhead.accelerate() if not forward_accelerated else torch.enable_grad():
        if forward_accelerated:
            accelerated.undo()
        grads = torch.autograd.grad(out, tensors, upstream)
    exact = with_gradients(reference.attention, tensors, upstream, allow=allow, scale=D**-0.5)
    for mine, truth in zip(grads, exact[1:], strict=True):
        assert (mine - truth).abs().amax() <= 64 * torch.finfo(torch.float32).eps


# Calls that torch's own kernel computes, bit for bit.
KEPT = {
    "dropout": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.5),
    "mask that learns": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.ones(L, S).requires_grad_()),
    "another value width": lambda q, k, v: F.scaled_dot_product_attention(q, k, v[..., :7]),
    "three axes": lambda q, k, v: F.scaled_dot_product_attention(q[0], k[0], v[0]),
    "no keys": lambda q, k, v: F.scaled_dot_product_attention(q, k[:, :, :0], v[:, :, :0]),
    "columns apart": lambda q, k, v: F.scaled_dot_product_attention(q.mT.contiguous().mT, k, v),
    "weights": lambda q, k, v: torch.nn.MultiheadAttention(D, 1, batch_first=True).eval()(q[0], q[0], q[0])[1],
}
if tuple(int(n) for n in torch.__version__.split(".")[:2]) >= (2, 14):
    del KEPT["three axes"]  # torch itself adds an axis, and we compute the result


def test_a_mask_with_is_causal_is_left_to_torch():
    """Torch 2.13 applies both, and 2.14 refuses them."""
    query, key, value = inputs(learn=False)

    def outcome():
        try:
            return F.scaled_dot_product_attention(query, key, value, torch.ones(L, S), is_causal=True)
        except RuntimeError as error:
            return str(error)

    theirs = outcome()
    with clearhead.accelerate() as accelerated:
        ours = outcome()
    assert ours == theirs if isinstance(theirs, str) else torch.equal(ours, theirs)
    assert accelerated.counts["forward"] == 0


@pytest.mark.parametrize("name", KEPT)
def test_unsupported_calls_run_on_torchs_kernel(name):
    tensors = inputs(learn=False)

    def run():
        torch.manual_seed(3)
        return KEPT[name](*tensors)

    theirs = run()
    with clearhead.accelerate() as accelerated:
        ours = run()
    assert torch.equal(ours.isnan(), theirs.isnan())
    assert torch.equal(ours.nan_to_num(), theirs.nan_to_num())
    assert accelerated.counts["forward"] == accelerated.counts["module"] == 0


def test_torchs_errors_are_still_raised():
    query, key, value = inputs(learn=False)
    with clearhead.accelerate(), pytest.raises(RuntimeError, match="Expected size"):
        F.scaled_dot_product_attention(query, key[..., :7], value)
    operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    with clearhead.accelerate() as accelerated, pytest.raises(RuntimeError):
        operator(query[0], key[0], value[0])
    assert accelerated.counts["forward"] == 0


@through_python
def test_the_plan_is_followed(monkeypatch):
    tensors, upstream = inputs(), torch.ones(B, H, L, D)
    stock = with_gradients(F.scaled_dot_product_attention, tensors, upstream)
    monkeypatch.setattr(torch_overrides, "match", lambda *_args, **_options: plan.TORCH_FASTER)
    with clearhead.accelerate() as accelerated:
        same = with_gradients(F.scaled_dot_product_attention, tensors, upstream)
    assert accelerated.counts == {"forward": 0, "backward": 0, "module": 0, "torch": 2}
    assert all(map(torch.equal, same, stock))


@through_python
def test_gradients_that_torch_computes_faster_stay_on_its_kernel(monkeypatch, costs):
    monkeypatch.setattr(torch_overrides, "is_forced", lambda: False)
    costs(900.0, 0.0)
    tensors, upstream = inputs(), torch.ones(B, H, L, D)
    with clearhead.accelerate() as accelerated:
        with_gradients(F.scaled_dot_product_attention, tensors, upstream)
        assert accelerated.counts == {"forward": 0, "backward": 0, "module": 0, "torch": 2}
        with torch.no_grad():
            F.scaled_dot_product_attention(*tensors)
        assert accelerated.counts["forward"] == 1


def test_our_kernel_named_torch_still_runs_torchs_kernel():
    tensors, upstream = inputs(), torch.ones(B, H, L, D)
    stock = with_gradients(clearhead.attention, tensors, upstream, kernel="torch")
    with clearhead.accelerate() as accelerated:
        same = with_gradients(clearhead.attention, tensors, upstream, kernel="torch")
        assert not torch_sdpa.is_torchs_own()
    assert all(map(torch.equal, same, stock))
    assert accelerated.counts == {"forward": 0, "backward": 0, "module": 0, "torch": 2}


def is_torchs():
    """Whether torch's own kernels compute every call."""
    overrides = acceleration._installation._overrides
    return overrides is None or not overrides.is_on


def test_undo_restores_torchs_kernels_bit_for_bit():
    tensors, upstream = inputs(), torch.randn(B, H, L, D)
    before = with_gradients(F.scaled_dot_product_attention, tensors, upstream)
    accelerated = clearhead.accelerate()
    assert accelerated.is_active
    assert not is_torchs()
    assert "active" in repr(accelerated)
    accelerated.undo()
    accelerated.undo()
    assert not accelerated.is_active
    assert is_torchs()
    assert all(map(torch.equal, with_gradients(F.scaled_dot_product_attention, tensors, upstream), before))
    assert accelerated.counts["torch"] == accelerated.counts["forward"] == 0


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_calls_nest_and_are_undone_in_any_order(order):
    calls = [clearhead.accelerate() for _ in range(3)]
    for number in order:
        assert not is_torchs()
        calls[number].undo()
    assert is_torchs()


def test_an_exception_undoes_it_and_a_block_may_be_entered_again():
    accelerated = clearhead.accelerate()
    for _ in range(2):
        with pytest.raises(AssertionError, match="in the block"), accelerated:
            assert is_torchs(), "in the block"
        assert is_torchs()


def test_blocks_of_one_handle_nest_and_the_last_one_to_end_undoes_it():
    with clearhead.accelerate() as accelerated:
        with accelerated:
            pass
        assert accelerated.is_active
        assert not is_torchs()
    assert is_torchs()
    accelerated.__exit__(None, None, None)  # one end too many does not count
    with accelerated:
        assert not is_torchs()
    assert is_torchs()


def test_threads_may_share_a_handle():
    accelerated, inside, leave = clearhead.accelerate(), threading.Event(), threading.Event()

    def block():
        with accelerated:
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=block)
    thread.start()
    inside.wait(60)
    with accelerated:
        pass
    assert accelerated.is_active
    leave.set()
    thread.join()
    assert not accelerated.is_active
    assert is_torchs()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda handle: pickle.loads(pickle.dumps(handle))])  # noqa: S301
def test_a_copy_of_a_handle_is_not_active_and_undoes_nothing(copied):
    with clearhead.accelerate() as accelerated:
        other = copied(accelerated)
        assert not other.is_active
        other.undo()
        assert not is_torchs()
        with other:
            assert other.is_active
        assert not is_torchs()
    assert is_torchs()
    with clearhead.accelerate():
        assert not is_torchs()


def test_every_thread_is_accelerated_and_switching_while_running_is_safe():
    query, key, value = inputs(learn=False)
    exact, _ = reference.attention(query, key, value, scale=D**-0.5)
    ready, done, wrong = threading.Event(), threading.Event(), []

    def work():
        torch.set_num_threads(1)
        while not done.is_set():
            if not torch.allclose(F.scaled_dot_product_attention(query, key, value).double(), exact, atol=1e-5):
                wrong.append(1)
            ready.set()

    with clearhead.accelerate() as accelerated:
        other = threading.Thread(target=lambda: F.scaled_dot_product_attention(query, key, value))
        other.start()
        other.join()
        assert sum(accelerated.counts.values()) == 1
    worker = threading.Thread(target=work)
    worker.start()
    ready.wait()
    for _ in range(50):
        with clearhead.accelerate():
            F.scaled_dot_product_attention(query, key, value)
    done.set()
    worker.join()
    assert not wrong


def test_torchs_module_and_layers_in_evaluation_and_training():
    x, padding = torch.randn(2, 7, 12), torch.zeros(2, 7, dtype=torch.bool)
    padding[0, 5:] = True
    future = torch.ones(7, 7, dtype=torch.bool).triu(1)
    layer = torch.nn.TransformerEncoderLayer(12, 4, 24, dropout=0.0, batch_first=True)
    attention = layer.self_attn
    names = {"attn_mask": "src_mask", "key_padding_mask": "src_key_padding_mask"}
    for options in ({}, {"attn_mask": future}, {"key_padding_mask": padding},
                    {"attn_mask": future, "key_padding_mask": padding},
                    {"attn_mask": future.expand(8, 7, 7), "key_padding_mask": padding}):  # fmt: skip
        for run in (
            lambda options=options: attention(x, x, x, need_weights=False, **options)[0],
            lambda options=options: layer(x, **{names[name]: mask for name, mask in options.items()}),
        ):
            for training, counted in ((True, "forward"), (False, "module")):
                layer.train(training)
                with torch.set_grad_enabled(training):
                    stock = run()
                    with clearhead.accelerate() as accelerated:
                        ours = run()
                assert accelerated.counts[counted] == sum(accelerated.counts.values()) == 1
                torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)


def test_an_empty_row_gives_0_in_torchs_module_too():
    x, padding = torch.randn(2, 3, 4), torch.tensor([[False] * 3, [True] * 3])
    layer = torch.nn.MultiheadAttention(4, 2, batch_first=True).eval()
    with torch.no_grad(), clearhead.accelerate():
        out, weights = layer(x, x, x, key_padding_mask=padding, need_weights=False)
    assert weights is None
    torch.testing.assert_close(out[1], layer.out_proj.bias.expand(3, 4))


def test_a_second_derivative_is_refused_as_torch_refuses_it():
    tensors = inputs()
    with clearhead.accelerate():
        out = F.scaled_dot_product_attention(*tensors).square().sum()
        grads = torch.autograd.grad(out, tensors, create_graph=True)
        with pytest.raises(RuntimeError, match="not implemented"):
            grads[0].sum().backward()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", ["-inf", "lowest"])
def test_empty_rows_give_0_and_gradients_of_0(dtype, hidden):
    number = -torch.inf if hidden == "-inf" else torch.finfo(dtype).min
    if dtype is torch.float16 and hidden == "lowest":
        pytest.skip("float16's lowest number, -65504, is an ordinary logit")
    for keys in (1, 3, S):
        for shape in ((L, keys), (B, 1, L, keys), (B, H, 1, keys)):
            query, key, value = inputs(dtype, 2, keys=keys)
            empty = torch.rand(shape[:-1], generator=torch.Generator().manual_seed(4)) > 0.5
            mask = torch.zeros(shape, dtype=dtype).masked_fill(empty[..., None], number)
            upstream = torch.randn(B, H, L, D).to(dtype)
            with clearhead.accelerate() as accelerated:
                out = F.scaled_dot_product_attention(query, key, value, mask, enable_gqa=True)
                grads = torch.autograd.grad(out, (query, key, value), upstream)
            assert accelerated.counts == {"forward": 1, "backward": 1, "module": 0, "torch": 0}
            rows = empty.broadcast_to(B, H, L)
            assert out[rows].abs().max() == grads[0][rows].abs().max() == 0
            exact = with_gradients(
                reference.attention, (query, key, value), upstream, allow=~rows[..., None], scale=D**-0.5
            )
            for mine, truth in zip((out, *grads), exact, strict=True):
                assert (mine - truth).abs().amax() <= 64 * torch.finfo(dtype).eps * (1 + truth.abs().amax())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("target", [row.name for row in clearhead.kernels.targets() if row.runs_here])
def test_incoming_gradients_may_be_expanded_negated_or_transposed(target, dtype):
    tensors = inputs(dtype)
    exact, _ = reference.attention(*tensors, scale=D**-0.5)
    for upstream in (
        torch.ones((), dtype=dtype).expand(B, H, L, D),
        torch.randn(B, L, H, D, dtype=dtype).transpose(1, 2),
        torch.randn(B, H, D, L, dtype=dtype).mT,
        torch._neg_view(torch.randn(B, H, L, D, dtype=dtype)),
    ):
        with clearhead.kernels.target(target), clearhead.accelerate() as accelerated:
            ours = torch.autograd.grad(F.scaled_dot_product_attention(*tensors), tensors, upstream)
        assert accelerated.counts["backward"] == 1
        truths = torch.autograd.grad(exact, tensors, upstream.double(), retain_graph=True)
        for mine, truth in zip(ours, truths, strict=True):
            assert (mine - truth).abs().amax() <= 64 * torch.finfo(dtype).eps * (1 + truth.abs().amax())


def test_without_the_native_library_accelerate_raises_and_the_environment_variable_warns(monkeypatch):
    monkeypatch.setattr(acceleration, "library", None)
    with pytest.raises(KernelError, match="native library, which was not built"):
        clearhead.accelerate()
    assert is_torchs()
    monkeypatch.setenv("CLEARHEAD_ACCELERATE", "1")
    with pytest.warns(RuntimeWarning, match="CLEARHEAD_ACCELERATE=1 has no effect"):
        acceleration.accelerate_by_environment()
    monkeypatch.setattr(acceleration, "library", object())
    monkeypatch.setattr(acceleration, "reads_tensors", False)
    with pytest.raises(KernelError, match="Update torch"):
        clearhead.accelerate()


def test_saved_tensor_hooks_may_change_strides():
    tensors, upstream = inputs(), torch.randn(B, H, L, D)
    plain = with_gradients(F.scaled_dot_product_attention, tensors, upstream)
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().mT.contiguous().mT, lambda t: t)
    with clearhead.accelerate() as accelerated, hooks:
        ours = with_gradients(F.scaled_dot_product_attention, tensors, upstream)
    assert accelerated.counts == {"forward": 1, "backward": 1, "module": 0, "torch": 0}
    for mine, stock in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, stock, rtol=1e-5, atol=1e-5)
