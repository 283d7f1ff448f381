"""torch.compile, export, vmap, gradcheck, opcheck, autocast, meta tensors, the FLOP counter."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import clearhead
from clearhead import masks
from clearhead.spec import Attention

B, H, H_KV, L, S, D, E = 2, 6, 3, 5, 7, 11, 13


def inputs(dtype=torch.float32, requires_grad=False):
    torch.manual_seed(1)
    shapes = [(B, H, L, D), (B, H_KV, S, D), (B, H_KV, S, E)]
    return [torch.randn(shape, dtype=dtype, requires_grad=requires_grad) for shape in shapes]


def case(q, k, v, bias, sinks):
    return clearhead.attention(q, k, v, bias, enable_gqa=True, softcap=3.0, sinks=sinks, return_lse=True)


@pytest.mark.slow
def test_compile_fullgraph_with_gradients_equals_eager():
    tensors = [
        *inputs(requires_grad=True),
        torch.randn(H, L, S, requires_grad=True),
        torch.randn(H, requires_grad=True),
    ]
    out, lse = case(*tensors)
    expected = torch.autograd.grad((out.sum() + lse.cos().sum()), tensors)
    compiled = torch.compile(case, fullgraph=True, backend="aot_eager")
    out_c, lse_c = compiled(*tensors)
    torch.testing.assert_close((out_c, lse_c), (out, lse))
    torch.testing.assert_close(torch.autograd.grad((out_c.sum() + lse_c.cos().sum()), tensors), expected)


@pytest.mark.slow
def test_a_second_derivative_of_a_compiled_call_is_refused_in_our_words():
    q, k, v = inputs(requires_grad=True)
    out = torch.compile(lambda q, k, v: clearhead.attention(q, k, v, enable_gqa=True), backend="eager")(q, k, v)
    (grad,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(clearhead.errors.KernelError, match=r"differentiated twice.*use torch.func.hessian"):
        grad.sum().backward()


@pytest.mark.slow
def test_compile_with_dynamic_shapes_does_not_recompile():
    from torch._dynamo.testing import CompileCounterWithBackend

    counter = CompileCounterWithBackend("eager")  # frames are counted before any backend
    compiled = torch.compile(
        lambda q, k, v: clearhead.attention(q, k, v, is_causal=True), fullgraph=True, dynamic=True, backend=counter
    )
    graphs = []
    for length in (5, 7, 11):
        q, k, v = (torch.randn(B, H, length, D) for _ in range(3))
        torch.testing.assert_close(compiled(q, k, v), clearhead.attention(q, k, v, is_causal=True))
        graphs.append(counter.frame_count)
    assert len(set(graphs)) == 1  # only the first call compiles


@pytest.mark.slow
def test_a_mask_object_and_dropout_compile():
    q, k, v = torch.randn(3, B, H, L, D)
    rule = masks.causal() & masks.sliding_window(2) | masks.prefix(1)
    compiled = torch.compile(lambda q, k, v: clearhead.attention(q, k, v, rule), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(q, k, v), clearhead.attention(q, k, v, rule))
    dropped = torch.compile(
        lambda q, k, v: clearhead.attention(q, k, v, dropout_p=0.5), fullgraph=True, backend="aot_eager"
    )
    torch.manual_seed(3)
    first = dropped(q, k, v)
    torch.manual_seed(3)
    torch.testing.assert_close(dropped(q, k, v), first)
    assert not torch.allclose(dropped(q, k, v), first)


@pytest.mark.slow
def test_the_module_compiles_and_exports():
    layer = clearhead.MultiheadAttention(12, 3, batch_first=True).eval()
    x = torch.randn(B, L, 12)
    expected = layer(x, x, x, need_weights=False)[0]
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, x, x, need_weights=False)[0], expected)
    torch.testing.assert_close(compiled(x, x, x)[1], layer(x, x, x)[1])
    exported = torch.export.export(
        layer,
        (x, x, x),
        {"need_weights": False},
        dynamic_shapes={n: {1: torch.export.Dim.AUTO} for n in ("query", "key", "value")} | {"need_weights": None},
    )
    torch.testing.assert_close(exported.module()(x, x, x, need_weights=False)[0], expected)


@pytest.mark.parametrize("kernel", [None, "torch", "reference"])
def test_gradcheck_passes(kernel):
    tensors = [*inputs(torch.float64, True), torch.randn(H, 1, S, dtype=torch.float64, requires_grad=True)]
    sinks = torch.randn(H, dtype=torch.float64, requires_grad=True)

    def function(q, k, v, bias, sinks):
        return clearhead.attention(
            q, k, v, bias, enable_gqa=True, softcap=3.0, sinks=sinks, return_lse=True, kernel=kernel
        )

    assert torch.autograd.gradcheck(function, (*tensors, sinks), fast_mode=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # opcheck's own code, in torch 2.14
@pytest.mark.parametrize("learning", [pytest.param(False, marks=pytest.mark.stress), True])
def test_opcheck_passes(learning):
    q, k, v = inputs(requires_grad=learning)
    bias = torch.randn(L, S, requires_grad=learning)
    sinks, slopes = (torch.randn(H, requires_grad=learning) for _ in range(2))
    allow = torch.rand(B, 1, L, S) > 0.3
    attention = Attention.of(
        0.3, reach=(None, 3), first_query=2, allow=allow, bias=bias, sinks=sinks, alibi=slopes, softcap=5.0
    )
    torch.library.opcheck(torch.ops.clearhead.attend.default, (q, k, v, *attention.arguments(), "torch"))


def test_vmap_and_functional_gradients():
    q, k, v = torch.randn(3, 4, H, L, D)  # four samples without a batch axis
    bias = torch.randn(4, L, L)
    mapped = torch.func.vmap(clearhead.attention)(q, k, v, bias)
    one_by_one = torch.stack([clearhead.attention(*parts) for parts in zip(q, k, v, bias, strict=True)])
    torch.testing.assert_close(mapped, one_by_one)
    shared = torch.func.vmap(clearhead.attention, in_dims=(0, None, None))(q, k[0], v[0])
    torch.testing.assert_close(shared[2], clearhead.attention(q[2], k[0], v[0]))

    def loss(q, k, v):
        return clearhead.attention(q, k, v).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss))(q, k, v)
    leaf = q[1].clone().requires_grad_()
    torch.testing.assert_close(per_sample[1], torch.autograd.grad(loss(leaf, k[1], v[1]), leaf)[0])


def test_vmap_over_sinks_is_refused():
    q, k, v = torch.randn(3, 4, 1, H, L, D)
    with pytest.raises(clearhead.errors.OptionError, match="sinks"):
        torch.func.vmap(lambda q, k, v, s: clearhead.attention(q, k, v, sinks=s))(q, k, v, torch.randn(4, H))


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_dropout_inside_vmap_follows_randomness_and_backward_uses_the_same_pattern(randomness):
    query, key, value = torch.randn(3, 1, 2, 5, 7), torch.randn(1, 2, 11, 7), torch.eye(11).expand(1, 2, 11, 11)

    def weights(sample):
        return clearhead.attention(sample, key, value, dropout_p=0.5)

    out, back = torch.func.vjp(torch.vmap(weights, randomness=randomness), query)
    kept = out != 0
    assert torch.equal(kept[0], kept[1]) is (randomness == "same")
    upstream = torch.randn_like(out)
    query.requires_grad_()
    plain = (query @ key.mT / 7**0.5).softmax(-1) * kept / 0.5
    torch.testing.assert_close(out, plain)
    torch.testing.assert_close(back(upstream)[0], torch.autograd.grad(plain, query, upstream)[0])


def test_the_flop_counter_counts_the_products():
    q, k, v = (t.requires_grad_() for t in inputs())
    with FlopCounterMode(display=False) as counter:
        clearhead.attention(q, k, v, enable_gqa=True).sum().backward()
    forward = 2 * B * H * L * S * (D + E)
    backward = 2 * B * H * L * S * (3 * D + 2 * E)  # the logits again, and a product for each gradient
    assert counter.get_total_flops() == forward + backward


def test_meta_tensors_give_the_right_shapes():
    q, k, v = (t.to("meta") for t in inputs())
    out, lse = clearhead.attention(q, k, v, enable_gqa=True, return_lse=True)
    assert (out.device.type, out.shape, lse.shape) == ("meta", (B, H, L, E), (B, H, L))
    layer = clearhead.MultiheadAttention(12, 3, device="meta")
    x = torch.empty(L, B, 12, device="meta")
    assert layer(x, x, x, need_weights=False)[0].shape == (L, B, 12)
    assert layer(x, x, x)[1].shape == (B, L, L)


def test_autocast_has_the_same_effect_as_on_torch():
    q, k, v = torch.randn(3, B, H, L, D)
    layer = clearhead.MultiheadAttention(12, 3)
    stock = torch.nn.MultiheadAttention(12, 3)
    layer.load_state_dict(stock.state_dict())
    x = torch.randn(L, B, 12)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = clearhead.attention(q, k, v), F.scaled_dot_product_attention(q, k, v)
        assert ours.dtype == theirs.dtype == torch.bfloat16
        for need_weights in (True, False):
            mine, other = layer(x, x, x, need_weights=need_weights), stock(x, x, x, need_weights=need_weights)
            assert [t.dtype for t in mine if t is not None] == [t.dtype for t in other if t is not None]
            torch.testing.assert_close(mine, other, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=2e-2)


def test_a_torch_function_mode_sees_every_attention_that_is_computed():
    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if args and isinstance(args[0], clearhead.kernels.Problem):
                seen.append(tuple(args[0].query.shape))
            return function(*args, **(kwargs or {}))

    seen = []
    layer = clearhead.MultiheadAttention(12, 3)
    x, q = torch.randn(L, B, 12), torch.randn(B, H, L, D)
    with Watch():
        watched = layer(x, x, x)[0], layer(x, x, x, need_weights=False)[0], clearhead.attention(q, q, q)
    assert seen == [(B, 3, L, 4), (B, 3, L, 4), (B, H, L, D)]
    torch.testing.assert_close(watched, (layer(x, x, x)[0], layer(x, x, x)[0], clearhead.attention(q, q, q)))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # shape checks convert sizes to numbers
def test_a_trace_works_for_other_shapes():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = clearhead.MultiheadAttention(12, 3, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    layer = Layer().eval()
    with pytest.warns((DeprecationWarning, FutureWarning), match="jit"):
        traced = torch.jit.trace(layer, (torch.randn(B, L, 12),))
    x = torch.randn(3, 7, 12)
    torch.testing.assert_close(traced(x), layer(x))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_cuda_tensors_run_through_torchs_kernels(dtype):
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    cpu = [t.to(dtype).requires_grad_() for t in inputs()]
    cuda = [t.detach().cuda().requires_grad_() for t in cpu]
    rule = masks.causal() & masks.sliding_window(3) | masks.prefix(1)
    for options in ({}, {"is_causal": True}, {"attn_mask": rule}, {"softcap": 2.0, "dropout_p": 0.0}):
        results = []
        for tensors in (cpu, cuda):
            out, lse = clearhead.attention(*tensors, **options, enable_gqa=True, return_lse=True)
            results.append([t.detach().cpu() for t in (out, lse, *torch.autograd.grad(out.sum(), tensors))])
        torch.testing.assert_close(results[1], results[0], atol=tolerance, rtol=tolerance)
    layer = clearhead.MultiheadAttention(12, 3, device="cuda", dtype=dtype)
    x = torch.randn(L, B, 12, device="cuda", dtype=dtype)
    torch.testing.assert_close(layer(x, x, x)[0], layer(x, x, x, need_weights=False)[0], atol=tolerance, rtol=tolerance)
    cache = clearhead.KVCache(B, H_KV, 9, D, value_dim=E, dtype=dtype, device="cuda")
    with torch.no_grad():
        keys, values = cache.append(*cuda[1:])
        assert clearhead.attention(cuda[0], keys, values, cache.mask(L), enable_gqa=True).is_cuda


# torch's own jvp scripts functions.
scripts = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


def dense_attention(q, k, v, bias, slopes, sinks):
    """The same as `ours` below, computed with the dense weights."""
    heads, length, keys = q.shape[-3], q.shape[-2], k.shape[-2]
    k, v = (x.repeat_interleave(heads // x.shape[-3], -3) for x in (k, v))
    logits = torch.tanh(q @ k.mT / (3 * q.shape[-1] ** 0.5)) * 3
    distance = torch.arange(keys) - torch.arange(length)[:, None]
    logits = logits + bias if slopes is None else logits - slopes[:, None, None] * distance.abs()
    logits = logits.masked_fill(distance > 0, -torch.inf)
    weights = torch.cat([logits, sinks[:, None, None].expand(*logits.shape[:-1], 1)], -1).softmax(-1)[..., :-1]
    return weights @ v


def ours(q, k, v, bias, slopes, sinks):
    above = torch.ones(bias.shape[-2:], dtype=torch.bool).triu(1)
    mask = bias.masked_fill(above, -torch.inf) if slopes is None else masks.causal() & masks.alibi(slopes)
    return clearhead.attention(q, k, v, mask, softcap=3.0, sinks=sinks, enable_gqa=True)


def tangents(f, q, step):
    return torch.func.jvp(f, (q,), (step,))[1]


def gradients(f):
    return torch.func.grad(lambda q: f(q).cos().sum())


TRANSFORMS = {
    "jvp": tangents,
    "jacfwd": lambda f, q, step: torch.func.jacfwd(f)(q),
    "vmap(jvp)": lambda f, q, step: torch.func.vmap(lambda a, b: tangents(f, a, b))(q, step),
    "jvp(vmap)": lambda f, q, step: tangents(torch.func.vmap(f), q, step),
    "jvp(grad)": lambda f, q, step: tangents(gradients(f), q, step),
    "grad(jvp)": lambda f, q, step: gradients(lambda a: tangents(f, a, step))(q),
    "hessian": lambda f, q, step: torch.func.hessian(lambda a: f(a).square().sum())(q),
}


@scripts
@pytest.mark.parametrize("mask", ["bias", "slopes"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_forward_mode_transforms_equal_the_dense_computation(name, mask, monkeypatch):
    monkeypatch.setattr(
        "clearhead.multihead.operators.double_backward.BLOCK", 2 * H * S * B
    )  # blocks of two queries, and a last one of one query
    q, k, v = inputs(torch.float64)
    k, v = (k[0], v[0]) if "vmap" in name else (k, v)
    bias, sinks = torch.randn(H, L, S, dtype=torch.float64), torch.randn(H, dtype=torch.float64)
    rest = (k, v, bias, torch.rand(H, dtype=torch.float64) if mask == "slopes" else None, sinks)
    step, transform = torch.randn_like(q), TRANSFORMS[name]
    expected, actual = (transform(lambda a, f=f: f(a, *rest), q, step) for f in (dense_attention, ours))
    torch.testing.assert_close(actual, expected)


@scripts
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("need_weights", [True, False])
def test_forward_and_backward_mode_agree_through_the_module(need_weights):
    layer = clearhead.MultiheadAttention(6, 2, batch_first=True, dtype=torch.float64, num_kv_heads=1)
    torch.autograd.gradcheck(
        lambda x: layer(x, x, x, need_weights=need_weights)[0],
        torch.randn(1, 3, 6, dtype=torch.float64, requires_grad=True),
        check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True,
    )  # fmt: skip


@scripts
def test_tangents_of_a_row_that_may_attend_nothing_are_zero():
    q, k, v = inputs(torch.float64)
    allow = torch.ones(L, S, dtype=torch.bool)
    allow[3] = False
    function = lambda q, k, v: clearhead.attention(q, k, v, allow, enable_gqa=True, return_lse=True)  # noqa: E731
    (out, lse), (moved, lse_moved) = torch.func.jvp(function, (q, k, v), (q, k, v))
    assert out[:, :, 3].eq(0).all()
    assert lse[:, :, 3].eq(-torch.inf).all()
    assert moved[:, :, 3].eq(0).all()
    assert lse_moved[:, :, 3].eq(0).all()
    assert moved.isfinite().all()
    assert moved[:, :, 2].ne(0).all()


@pytest.mark.slow
@scripts
@pytest.mark.parametrize("name", ["grad", "vmap(grad)", "jvp"])
def test_transforms_can_be_compiled(name):
    q = torch.randn(3, 2, H, L, D)
    transform = {
        "grad": gradients(lambda a: clearhead.attention(a, a, a)),
        "vmap(grad)": torch.func.vmap(gradients(lambda a: clearhead.attention(a, a, a))),
        "jvp": lambda a: tangents(lambda b: clearhead.attention(b, b, b), a, a),
    }[name]
    torch.testing.assert_close(torch.compile(transform, fullgraph=True, backend="eager")(q), transform(q))


@pytest.mark.slow
def test_a_rule_and_options_given_as_arguments_compile_for_any_length():
    compiled = torch.compile(
        lambda x, rule, cap: clearhead.attention(x, x, x, rule, softcap=cap),
        fullgraph=True, dynamic=True, backend="aot_eager",
    )  # fmt: skip
    for length in (7, 11):
        x = torch.randn(2, H, length, D)
        rule = masks.causal() & masks.sliding_window(2)
        expected = clearhead.attention(x, x, x, rule, softcap=2.5)
        torch.testing.assert_close(compiled(x, rule, 2.5), expected)


def test_torch_fx_records_the_module_as_one_node():
    class Around(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attend = clearhead.MultiheadAttention(12, 3, batch_first=True)

        def forward(self, x, padding):
            out, weights = self.attend(x, x, x, key_padding_mask=padding)
            return x + out, weights

    model, x, padding = Around(), torch.randn(2, 5, 12), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    graph = torch.fx.symbolic_trace(model)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["attend"]
    torch.testing.assert_close(graph(x, padding), model(x, padding))
    with pytest.raises(clearhead.errors.OptionError, match="Trace the model around it"):
        torch.fx.symbolic_trace(model.attend)
