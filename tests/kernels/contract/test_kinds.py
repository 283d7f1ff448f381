"""Unusual tensors and callers: each of these once gave a wrong result or a crash."""

import pytest
import torch
import torch.utils._pytree as pytree
from torch.autograd import forward_ad
from torch.nn.attention.bias import causal_lower_right

import clearhead
import fresh
import reference
from clearhead import AttentionMatrix


class Wrapping(torch.Tensor):
    """A tensor without memory: every operator runs on the tensor it wraps."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, strides=inner.stride(), dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args, kwargs = pytree.tree_map_only(Wrapping, lambda t: t.inner, (args, kwargs or {}))
        return pytree.tree_map_only(torch.Tensor, Wrapping, func(*args, **kwargs))


@pytest.mark.parametrize("which", ["query", "key", "value", "attn_mask", "sinks"])
def test_a_wrapper_class_is_dispatched_and_never_read(which: str) -> None:
    given = dict(zip(("query", "key", "value"), torch.randn(3, 1, 2, 5, 7), strict=True))
    given |= {"attn_mask": torch.rand(5, 5) < 0.7, "sinks": torch.randn(2)}
    expected = clearhead.attention(**given)
    given[which] = Wrapping(given[which])
    torch.testing.assert_close(clearhead.attention(**given).inner, expected)


@pytest.mark.parametrize("which", ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"])
def test_parameters_may_be_of_a_wrapper_class(which: str) -> None:
    layer = clearhead.MultiheadAttention(64, 2, batch_first=True).eval().requires_grad_(False)
    x = torch.randn(3, 17, 64)
    expected = layer(x, x, x, need_weights=False)[0]
    owner, name = (layer.out_proj, which.partition(".")[2]) if "." in which else (layer, which)
    setattr(owner, name, torch.nn.Parameter(Wrapping(getattr(owner, name).data), requires_grad=False))
    torch.testing.assert_close(layer(x, x, x, need_weights=False)[0].inner, expected)


@pytest.mark.parametrize("kernel", [None, "torch"])
@pytest.mark.parametrize("strides", [(0, 1, 1, 1), (0, 1, 7, 1), (30, 10, 1, 1), (1, 0, 0, 1)])
def test_overlapping_windows_have_the_gradients_of_their_copies(strides: tuple[int, ...], kernel: str | None) -> None:
    # torch's flash operator gives its outputs the strides of the inputs, and then writes past a row (torch 2.13).
    def gradient(kernel: str | None) -> torch.Tensor:
        store = torch.randn(101, generator=torch.Generator().manual_seed(0)).requires_grad_()
        x = store.as_strided((2, 3, 3, 7), strides)
        clearhead.attention(x, x, x, kernel=kernel).square().sum().backward()
        return store.grad

    torch.testing.assert_close(gradient(kernel), gradient("reference"), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_overlapping_windows_have_the_output_of_their_copies(dtype: torch.dtype) -> None:
    x = torch.randn(11, dtype=dtype).unfold(0, 7, 1)[None, None]
    torch.testing.assert_close(clearhead.attention(x, x, x), clearhead.attention(*[x.clone()] * 3))


# Calls whose backward pass torch's flash operator computes for batched gradients, and calls for blockwise torch.
UPSTREAM: dict[str, dict[str, object]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "soft cap": {"softcap": 3.0},
    "sinks, lse": {"sinks": torch.tensor([0.5, -1.0]), "return_lse": True},
    "scale per head": {"scale": torch.tensor([0.5, -0.1])},
    "mask that learns": {"attn_mask": torch.linspace(-1, 1, 67)[:, None]},
    "mask of keys that learns": {"attn_mask": torch.linspace(-1, 1, 11)[None]},
    "dropout": {"dropout_p": 0.3},
}


# Torch says so of its own operator, also behind its own function.
@pytest.mark.filterwarnings("ignore:There is a performance drop because we have not yet implemented the batching rule")
@pytest.mark.parametrize("call", UPSTREAM)
@pytest.mark.parametrize("value_width", [7, 5])
@pytest.mark.parametrize("length", [3, 67])
def test_incoming_gradients_may_be_batched_or_of_a_wrapper_class(
    length: int, value_width: int, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clearhead.kernels.portable.blockwise.BLOCK", 2 * 11 * 20)  # several blocks of queries
    options = {
        name: x.clone().requires_grad_() if isinstance(x, torch.Tensor) else x for name, x in UPSTREAM[call].items()
    }
    if call == "mask that learns":
        options["attn_mask"] = options["attn_mask"][:length]
    query, key = torch.randn(1, 2, length, 7, requires_grad=True), torch.randn(1, 2, 11, 7, requires_grad=True)
    value = torch.randn(1, 2, 11, value_width, requires_grad=True)
    inputs = [query, key, value, *(x for x in options.values() if isinstance(x, torch.Tensor))]
    result = clearhead.attention(query, key, value, **options)
    outs = result if isinstance(result, tuple) else (result,)
    many = [torch.randn(3, *out.shape) for out in outs]

    def gradients(*upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(outs, inputs, upstream, retain_graph=True)

    right = [gradients(*upstream) for upstream in zip(*many, strict=True)]
    batched = torch.autograd.grad(outs, inputs, many, is_grads_batched=True, retain_graph=True)
    for got in (batched, torch.func.vmap(gradients)(*many)):
        for actual, *expected in zip(got, *right, strict=True):
            torch.testing.assert_close(actual, torch.stack(expected), atol=1e-5, rtol=1e-4)
    wrapped = gradients(*(Wrapping(upstream[0]) for upstream in many))
    for actual, expected in zip(wrapped, right[0], strict=True):
        torch.testing.assert_close(actual.inner, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kernel", [None, "torch", "reference"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("learns", [False, True])
def test_a_float32_mask_keeps_its_range_and_precision_with_16_bit_queries(dtype, kernel, learns) -> None:
    query, key, value = torch.randn(3, 1, 1, 5, 7).to(dtype)
    bias = 200 + torch.randn(5, 5)
    bias[2] -= 1e5  # outside float16's range, but not -inf: the row is not empty
    out = clearhead.attention(query.clone().requires_grad_(learns), key, value, bias, kernel=kernel)
    truth, _ = reference.attention(query, key, value, scale=7**-0.5, bias=bias)
    torch.testing.assert_close(out.double(), truth, atol=2e-2, rtol=0)


@pytest.mark.parametrize("kernel", [None, "torch", "reference"])
@pytest.mark.parametrize("options", [{}, {"softcap": 5.0}], ids=["plain", "softcap"])
def test_a_row_with_one_large_bias_is_the_mean_of_the_values(options, kernel) -> None:
    query, key, value = torch.randn(3, 1, 2, 5, 7)
    bias = torch.zeros(5, 5)
    bias[1] = -1e30  # added to it, the logits and the logarithm of 5 are lost to rounding in every dtype
    out = clearhead.attention(query, key, value, bias, kernel=kernel, **options)
    torch.testing.assert_close(out[:, :, 1], value.mean(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernel", [None, "torch", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("learns", [False, True])
def test_a_row_biased_by_the_lowest_float_is_empty(dtype, kernel, learns) -> None:
    query, key, value = torch.randn(3, 1, 2, 5, 7, dtype=dtype)
    bias = torch.zeros(5, 5, dtype=dtype)
    bias[1] = torch.finfo(torch.float32).min  # in float16, -inf
    query.requires_grad_(learns)
    out, lse = clearhead.attention(query, key, value, bias, kernel=kernel, return_lse=True)
    assert not out[:, :, 1].any()
    assert (lse[:, :, 1] == -torch.inf).all()
    assert torch.equal(clearhead.attention(query, key, value, bias, kernel=kernel) == 0, out == 0)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, on its first use
@pytest.mark.parametrize("length", [3, 67])
@pytest.mark.parametrize("options", [{}, {"softcap": 5.0}], ids=["plain", "softcap"])
def test_a_tangent_of_the_incoming_gradient_is_refused_and_never_dropped(length: int, options) -> None:
    query = torch.randn(1, 2, length, 7, requires_grad=True)
    out = clearhead.attention(query, query, query, **options)
    with forward_ad.dual_level():
        upstream = forward_ad.make_dual(torch.ones_like(out), torch.ones_like(out))
        with pytest.raises((NotImplementedError, RuntimeError), match=r"forward AD|jvp"):
            torch.autograd.grad(out, query, upstream)


def test_a_negated_lse_is_read_correctly() -> None:
    query = torch.randn(1, 2, 5, 7)
    right = AttentionMatrix(query, query)
    negated = torch.complex(torch.zeros_like(right.lse), -right.lse).conj().imag
    assert negated.is_neg()
    given = AttentionMatrix(query, query, lse=negated)
    for ask in (AttentionMatrix.received, AttentionMatrix.entropy, AttentionMatrix.to_dense):
        torch.testing.assert_close(ask(given), ask(right))


_QUESTIONS = """
import torch, clearhead
from clearhead import AttentionMatrix, Rotary
q = torch.randn(1, 2, 5, 8)
ask = {
    "entropy": lambda A: A.entropy(), "received": lambda A: A.received(), "topk": lambda A: A.topk(2)[0],
    "map": lambda A: A.pooled(2, 2), "row": lambda A: A[0, :, -1], "heads": lambda A: A.heads([1]).to_dense(),
    "diagonal": lambda A: A.diagonal(-1), "pair": lambda A: A[0, 1, [0, 1], [2, 3]], "all": lambda A: A.survey(k=2).entropy,
    "dropped": lambda A: (torch.manual_seed(0), clearhead.attention(q, q, q, dropout_p=0.5, kernel="reference"))[1],
    "turned": lambda A: Rotary(8)(q), "allowed": lambda A: A.allowed(2, 3),
}
before = {name: question(AttentionMatrix(q, q)) for name, question in ask.items()}
torch.set_default_device("meta")
torch.set_default_dtype(torch.bfloat16)
for name, question in ask.items():
    after = question(AttentionMatrix(q, q))
    assert after.device.type == "cpu" and torch.equal(after, before[name]), name
"""


@pytest.mark.slow
def test_a_default_device_or_dtype_changes_no_result() -> None:
    # In a subprocess, because a null address would crash it.
    actual = fresh.run(_QUESTIONS)
    assert actual.returncode == 0, actual.stderr


_FIRST_CALL = """
import torch, clearhead
q = torch.randn(1, 2, 5, 8)
{call}
assert clearhead.attention(q, q, q, softcap=2.0).isfinite().all()
assert clearhead.AttentionMatrix(q, q).survey().entropy.isfinite().all()
"""
_CALLS = {
    "transform": "torch.func.grad(lambda x: clearhead.attention(x, q, q).sum())(q)",
    "fake": "from torch._subclasses import FakeTensorMode\nwith FakeTensorMode(): clearhead.attention",
    "inference": "with torch.inference_mode(): clearhead.attention(q, q, q)",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "call", [call if call == "transform" else pytest.param(call, marks=pytest.mark.stress) for call in _CALLS]
)
def test_state_cached_at_the_first_call_works_for_later_ones(call: str) -> None:
    script = _FIRST_CALL.format(call=_CALLS[call])
    actual = fresh.run(script)
    assert actual.returncode == 0, actual.stderr


def test_saved_tensor_hooks_may_change_the_layout() -> None:
    query = torch.randn(1, 2, 5, 7, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.mT.contiguous().mT, lambda t: t):
        out = clearhead.attention(query, query, query, softcap=2.0)
    right = clearhead.attention(query, query, query, softcap=2.0)
    got, expected = (torch.autograd.grad(o.square().sum(), query)[0] for o in (out, right))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("which", ["query", "key", "value", "allow", "bias", "sinks", "alibi"])
def test_a_problem_with_unreadable_tensors_is_refused(which: str) -> None:
    parts = dict(zip(("query", "key", "value"), torch.randn(3, 1, 2, 5, 7), strict=True))
    fits = {"allow": torch.ones(5, 5, dtype=torch.bool), "bias": torch.ones(5, 5)}
    for odd, text in (
        (causal_lower_right(5, 5), "CausalBias"),
        ((parts | fits).get(which, torch.ones(2)).to_sparse(), "layout"),
    ):
        with pytest.raises(clearhead.errors.DtypeError, match=f"{which} .*{text}"):
            clearhead.kernels.run(clearhead.kernels.Problem(**parts | {which: odd}, scale=1.0))
