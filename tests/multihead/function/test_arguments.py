"""Tensors of other classes and layouts in every argument of every public function: converted, dispatched or refused."""

import pytest
import torch
from torch.nn.attention.bias import causal_lower_right, causal_upper_left
from torch.nn.functional import scaled_dot_product_attention as sdpa

import clearhead
import reference
from clearhead import errors, masks
from clearhead.arguments import Kind, kind
from clearhead.multihead import reinforce
from clearhead.multihead.transformers_backend import forward as interface

B, H, L, S, D = 2, 3, 5, 7, 11
Q, K, V = (torch.randn(B, H, n, D, generator=torch.Generator().manual_seed(n)) for n in (L, S, S + 1))
V = V[:, :, :S]
X = torch.randn(B, L, 12, generator=torch.Generator().manual_seed(0))
LAYER = clearhead.MultiheadAttention(12, 3, batch_first=True)
PACKED = torch.randn(S, H, D)


class Plain(torch.Tensor):
    """A subclass that overrides nothing."""


class Knows(torch.Tensor):
    """A subclass that overrides only torch's function, and means a causal mask, whatever its memory contains."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is sdpa:
            return sdpa(*args[:3], is_causal=True)
        return super().__torch_function__(func, types, args, kwargs or {})


class Answers(torch.Tensor):
    """A subclass that overrides every function."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return f"override of {func.__qualname__}"


class Declines(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return NotImplemented


def cache():
    return clearhead.KVCache(B, H, 16, D)


def matrix():
    return clearhead.AttentionMatrix(Q, K)


# Every argument that takes a tensor -> a call with it, and a tensor that fits.
ARGUMENTS = {
    "attention query": (lambda x: clearhead.attention(x, K, V), Q),
    "attention key": (lambda x: clearhead.attention(Q, x, V), K),
    "attention value": (lambda x: clearhead.attention(Q, K, x), V),
    "attention sinks": (lambda x: clearhead.attention(Q, K, V, sinks=x), torch.ones(H)),
    "module query": (lambda x: LAYER(x, X, X), X),
    "module key": (lambda x: LAYER(X, x, X), X),
    "module value": (lambda x: LAYER(X, X, x), X),
    "module key_padding_mask": (lambda x: LAYER(X, X, X, key_padding_mask=x), torch.zeros(B, L)),
    "hard_attention query": (lambda x: clearhead.hard_attention(x, K, V), Q),
    "hard_attention value": (lambda x: clearhead.hard_attention(Q, K, x), V),
    "attention_varlen query": (lambda x: clearhead.attention_varlen(x, PACKED, PACKED, torch.tensor([0, S])), PACKED),
    "attention_varlen offsets": (lambda x: clearhead.attention_varlen(*[PACKED] * 3, x), torch.tensor([0, S])),
    "attention_varlen sinks": (
        lambda x: clearhead.attention_varlen(*[PACKED] * 3, torch.tensor([0, S]), sinks=x),
        torch.ones(H),
    ),
    "cache key": (lambda x: cache().append(x, V), K),
    "cache value": (lambda x: cache().append(K, x), V),
    "cache reorder": (lambda x: cache().reorder(x), torch.tensor([1, 0])),
    "rotary x": (lambda x: clearhead.Rotary(12)(x), X[:, None]),
    "rotary positions": (lambda x: clearhead.Rotary(12)(X[:, None], positions=x), torch.arange(L)),
    "matrix query": (lambda x: clearhead.AttentionMatrix(x, K), Q),
    "matrix bias": (lambda x: clearhead.AttentionMatrix(Q, K, bias=x), torch.zeros(L, S)),
    "matrix lse": (lambda x: clearhead.AttentionMatrix(Q, K, lse=x), torch.zeros(B, H, L)),
    "matrix @": (lambda x: matrix() @ x, torch.ones(S, 2)),
    "matrix.mT @": (lambda x: matrix().mT @ x, torch.ones(L, 2)),
    "matrix mean @": (lambda x: matrix().mean_heads() @ x, torch.ones(S, 2)),
    "matrix value_weighted": (lambda x: matrix().value_weighted(x), V),
    "rollout @": (lambda x: clearhead.rollout([clearhead.AttentionMatrix(Q, Q)]) @ x, torch.ones(L, 2)),
    "masks.causal": (masks.causal, torch.tensor([1, 2])),
    "masks.padding": (masks.padding, torch.tensor([1, 2])),
    "masks.document": (masks.document, torch.tensor([0, 0, 1])),
    "masks.from_dense": (masks.from_dense, torch.ones(L, S, dtype=torch.bool)),
    "masks.alibi": (masks.alibi, torch.ones(H)),
    "masks.relative": (masks.relative, torch.ones(3)),
    "reinforce": (lambda x: reinforce(x, torch.ones(3)), torch.ones(3)),
    "interface query": (lambda x: interface(torch.nn.Identity(), x, K, V, None), Q),
}
MASKS = {
    "attention": lambda m, q=Q: clearhead.attention(q, K, V, m),
    "module": lambda m: LAYER(X, X, X, attn_mask=m),
    "hard_attention": lambda m, q=Q: clearhead.hard_attention(q, K, V, m),
    "matrix": lambda m, q=Q: clearhead.AttentionMatrix(q, K, allow=m).to_dense(),
    "interface": lambda m, q=Q: interface(torch.nn.Identity(), q, K, V, m)[0],
    "interface with a bias": lambda m, q=Q: interface(
        torch.nn.Identity(), q, K, V, m, position_bias=torch.zeros(1, H, L, S)
    )[0],
}


def odd(kind: str, tensor: torch.Tensor):
    """Return a tensor whose memory does not hold its numbers."""
    if kind == "causal bias":
        return causal_lower_right(L, S)
    if kind == "sparse":
        return tensor.to_sparse()
    if kind == "masked":
        return torch.masked.masked_tensor(tensor, torch.ones_like(tensor, dtype=torch.bool))
    if kind == "quantized":
        return torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8)
    return torch.nested.nested_tensor(list(tensor) if tensor.dim() > 1 else [tensor], layout=torch.jagged)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:The PyTorch API of MaskedTensors")
@pytest.mark.parametrize("kind", ["causal bias", "sparse", "masked", "quantized", "nested"])
def test_a_tensor_whose_memory_does_not_hold_its_numbers_is_refused_in_every_argument(kind: str) -> None:
    for name, (call, fits) in ARGUMENTS.items():
        with pytest.raises((errors.DtypeError, errors.OptionError, errors.ShapeError)) as caught:
            call(odd(kind, fits))
        text = {"causal bias": "CausalBias", "masked": "MaskedTensor"}.get(kind, kind)
        assert text in str(caught.value), name


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:The PyTorch API of MaskedTensors")
@pytest.mark.parametrize("kind", ["sparse", "masked", "quantized", "nested"])
def test_a_tensor_whose_memory_does_not_hold_its_numbers_is_refused_as_a_mask(kind: str) -> None:
    for call in MASKS.values():
        with pytest.raises(errors.DtypeError, match={"masked": "MaskedTensor"}.get(kind, kind)):
            call(odd(kind, torch.ones(L, S)))


@pytest.mark.parametrize("make", [causal_lower_right, causal_upper_left])
@pytest.mark.parametrize(("length", "keys"), [(L, S), (S, S), (1, S)])
def test_a_causal_bias_equals_its_dense_mask(make, length: int, keys: int) -> None:
    query, shift = Q[:, :, -1:].expand(-1, -1, length, -1), keys - length if make is causal_lower_right else 0
    dense = torch.ones(length, keys, dtype=torch.bool).tril(shift)
    expected = reference.attention(query, K, V, scale=D**-0.5, allow=dense)[0]
    for options in ({}, {"softcap": 50.0}, {"return_lse": True}):
        actual = clearhead.attention(query, K, V, make(length, keys), **options)
        wanted = clearhead.attention(query, K, V, dense, **options)
        torch.testing.assert_close(actual, wanted)
    torch.testing.assert_close(
        clearhead.attention(query, K, V, make(length, keys)).double(), expected, atol=1e-5, rtol=0
    )
    if length == L:
        for name, call in MASKS.items():
            if name != "module":
                torch.testing.assert_close(call(make(L, S)), call(dense), msg=name)
    x = X.repeat(1, 2, 1)
    actual = LAYER(x[:, :length], x[:, :keys], x[:, :keys], attn_mask=make(length, keys))
    torch.testing.assert_close(actual, LAYER(x[:, :length], x[:, :keys], x[:, :keys], attn_mask=~dense))


def test_a_causal_bias_allocates_no_mask() -> None:
    length = 1 << 17  # a dense mask of a square matrix would take 16 GiB
    query = torch.randn(1, 1, 1, D)
    key = torch.randn(1, 1, length, D)
    actual = clearhead.AttentionMatrix(query, key, allow=causal_lower_right(1, length))
    assert actual._logits.attention.allow is None
    assert actual._logits.attention.rule is None


def test_a_causal_bias_of_other_sizes_or_beside_is_causal_is_refused() -> None:
    with pytest.raises(errors.ShapeError, match=r"L = 3.*causal_lower_right\(3, 7\)"):
        clearhead.attention(Q, K, V, causal_lower_right(3, S))
    with pytest.raises(errors.OptionError, match="is_causal is True"):
        clearhead.attention(Q, K, V, causal_lower_right(L, S), is_causal=True)


def test_a_causal_bias_with_a_cache_is_aligned_at_its_own_corner() -> None:
    layer, held = LAYER.eval(), clearhead.KVCache(B, 3, 16, 4)
    with torch.no_grad():
        layer(X[:, :3], X[:, :3], X[:, :3], cache=held, is_causal=True)
        actual = layer(X[:, 3:], X[:, 3:], X[:, 3:], cache=held, attn_mask=causal_lower_right(L - 3, L))[0]
        whole = layer(X, X, X, attn_mask=masks.causal())[0]
    torch.testing.assert_close(actual, whole[:, 3:])


def test_observing_torchs_function_with_a_causal_bias() -> None:
    class Net(torch.nn.Module):
        def forward(self, mask):
            return sdpa(Q, K, V, mask)

    for make in (causal_lower_right, causal_upper_left):
        net = Net()
        with clearhead.observe(net) as record:
            out = net(make(L, S))
        (seen,) = record.values()
        torch.testing.assert_close(seen @ V, out)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_subclass_that_overrides_nothing_is_read_from_its_memory(name: str) -> None:
    call, fits = ARGUMENTS[name]
    actual, expected = call(fits.as_subclass(Plain)), call(fits)
    for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (actual, expected)), strict=True):
        if isinstance(b, torch.Tensor):
            assert type(a) is Plain
            torch.testing.assert_close(a.as_subclass(torch.Tensor), b)


class Weight(torch.nn.Parameter):
    """A class with a disabled __torch_function__, like torch.nn.Parameter."""


class Child(Plain):
    pass


def test_results_have_the_class_that_torchs_function_gives() -> None:
    for given in ((Weight(Q), K, V), (Q.as_subclass(Plain), K.as_subclass(Child), V), (Q, K.as_subclass(Plain), V)):
        assert type(clearhead.attention(*given)) is type(sdpa(*given))


def test_a_subclass_passes_gradients_and_is_recorded_by_observe() -> None:
    x = X.clone().requires_grad_()
    LAYER(x, x, x)[0].square().sum().backward()
    expected, x.grad = x.grad, None
    with clearhead.observe(LAYER) as record:
        out, weights = LAYER(*[x.as_subclass(Plain)] * 3)
    assert type(out) is type(weights) is Plain
    assert len(record) == 1
    out.square().sum().backward()
    torch.testing.assert_close(x.grad, expected)
    query = Q.clone().requires_grad_()
    clearhead.attention(query.as_subclass(Plain), K, V).sum().backward()
    assert query.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_class_that_overrides_every_function_is_dispatched(name: str) -> None:
    call, fits = ARGUMENTS[name]
    if name in ("matrix query", "matrix bias", "matrix lse"):
        with pytest.raises(TypeError, match="__init__"):  # a constructor cannot be overridden
            call(fits.as_subclass(Answers))
    else:
        assert str(call(fits.as_subclass(Answers))).startswith("override of ")


def test_a_class_that_overrides_torchs_function_is_dispatched_with_it() -> None:
    mask = torch.zeros(L, S).as_subclass(Knows)
    torch.testing.assert_close(
        clearhead.attention(Q, K, V, mask).as_subclass(torch.Tensor), clearhead.attention(Q, K, V, is_causal=True)
    )


def test_a_class_that_returns_not_implemented_is_named() -> None:
    with pytest.raises(TypeError, match=r"Declines.__torch_function__ returned NotImplemented .* attention"):
        clearhead.attention(Q.as_subclass(Declines), K, V)


def test_torch_fx_records_the_function_as_one_node() -> None:
    graph = torch.fx.symbolic_trace(lambda q, k, v: clearhead.attention(q, k, v, is_causal=True))
    assert [node.target for node in graph.graph.nodes if node.op == "call_function"] == [clearhead.attention]
    torch.testing.assert_close(graph(Q, K, V), clearhead.attention(Q, K, V, is_causal=True))


def test_tensors_without_memory() -> None:
    zeros = torch._efficientzerotensor(Q.shape)
    torch.testing.assert_close(clearhead.attention(zeros, K, V), V.mean(2, keepdim=True).expand(-1, -1, L, -1))
    torch.testing.assert_close(
        torch.func.functionalize(lambda q: clearhead.attention(q, K, V))(Q), clearhead.attention(Q, K, V)
    )
    whole = torch.randn(3, 1, 2, 5, 7)
    for which in range(3):  # each but the first is a view with an offset, and the functional tensor has no memory
        given = list(whole)
        given[which] = torch._to_functional_tensor(given[which])
        actual = clearhead.attention(*given)
        actual = torch._from_functional_tensor(actual) if torch._is_functional_tensor(actual) else actual
        torch.testing.assert_close(actual, clearhead.attention(*whole))


def test_numbers_may_be_tensors_without_axes() -> None:
    expected = clearhead.attention(Q, K, V, scale=0.5)
    torch.testing.assert_close(clearhead.attention(Q, K, V, scale=torch.tensor(0.5)), expected)
    torch.testing.assert_close(clearhead.attention(Q, K, V, dropout_p=torch.tensor(0.0), scale=0.5), expected)
    with pytest.raises(errors.ShapeError, match="or one per query head"):  # Q has three heads
        clearhead.attention(Q, K, V, scale=torch.tensor([0.5, 0.5]))


def test_kind_of_each_class() -> None:
    assert kind(torch.nn.Parameter(Q)) is kind(torch.nn.Buffer(Q)) is kind("text") is Kind.PLAIN
    assert kind(causal_upper_left(2, 3)) is Kind.CAUSAL_BIAS
    assert kind(Q.as_subclass(Plain)) is Kind.OVERRIDES
    with torch._subclasses.FakeTensorMode() as mode:
        assert kind(mode.from_tensor(Q)) is Kind.OPERATORS
