"""clearhead.MultiheadAttention compared with torch.nn.MultiheadAttention."""

import copy
import inspect
import itertools
import pickle

import pytest
import torch

import clearhead

B, L, S, H = 2, 5, 7, 3
E, K, V = 12, 10, 14  # embed_dim, kdim, vdim


def pair(**options):
    torch.manual_seed(0)
    stock = torch.nn.MultiheadAttention(E, H, **options)
    torch.manual_seed(0)
    ours = clearhead.MultiheadAttention(E, H, **options)
    return ours, stock


def inputs(batch_first=False, k=E, v=E, batched=True):
    torch.manual_seed(1)
    shapes = [(B, L, E), (B, S, k), (B, S, v)]
    tensors = [torch.randn(shape) for shape in shapes]
    if not batched:
        return [t[0] for t in tensors]
    return tensors if batch_first else [t.transpose(0, 1) for t in tensors]


def same(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


def test_constructor_and_forward_have_torchs_arguments_order_and_defaults():
    for name in ("__init__", "forward"):
        stock = inspect.signature(getattr(torch.nn.MultiheadAttention, name)).parameters
        ours = inspect.signature(getattr(clearhead.MultiheadAttention, name)).parameters
        shared = list(ours.values())[: len(stock)]
        assert [(p.name, p.default, p.kind) for p in shared] == [(p.name, p.default, p.kind) for p in stock.values()]
        added = list(ours.values())[len(stock) :]
        assert all(p.default is not p.empty for p in added)
        # torch.onnx.export(dynamo=False) passes every argument of `forward` by position.
        assert name == "forward" or all(p.kind is p.KEYWORD_ONLY for p in added)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"add_bias_kv": True},
        {"kdim": K, "vdim": V},
        {"kdim": K, "bias": False, "add_bias_kv": True},
    ],
    ids=str,
)
def test_a_seed_gives_torchs_parameters_and_state_dicts_load_both_ways(options):
    ours, stock = pair(**options)
    assert list(ours.state_dict()) == list(stock.state_dict())
    for name, tensor in stock.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
    ours._reset_parameters()
    stock.load_state_dict(ours.state_dict())
    ours.load_state_dict(stock.state_dict())


MASKS = {
    "no mask": {},
    "padding": {"key_padding_mask": torch.tensor([[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 1]]).bool()},
    "float padding": {"key_padding_mask": torch.randn(B, S, generator=torch.Generator().manual_seed(5))},
    "mask 2-D": {"attn_mask": torch.arange(S) > torch.arange(L)[:, None] + 2},
    "mask 3-D": {"attn_mask": torch.rand(B * H, L, S, generator=torch.Generator().manual_seed(6)) > 0.8},
    "float mask": {"attn_mask": torch.randn(L, S, generator=torch.Generator().manual_seed(7))},
    "float mask 3-D": {"attn_mask": torch.randn(B * H, L, S, generator=torch.Generator().manual_seed(7))},
}
MASKS["both bool"] = MASKS["padding"] | MASKS["mask 2-D"]
MASKS["both float"] = MASKS["float padding"] | MASKS["float mask"]
MASKS["causal hint"] = {"attn_mask": (torch.arange(S) > torch.arange(L)[:, None]), "is_causal": True}
FORMS = [
    {},
    {"batch_first": True},
    {"add_bias_kv": True, "add_zero_attn": True},
    {"kdim": K, "vdim": V, "batch_first": True, "bias": False},
]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("options", FORMS, ids=str)
def test_output_weights_and_gradients_are_torchs(options, mask):
    ours, stock = pair(**options)
    tensors = inputs(options.get("batch_first", False), options.get("kdim", E), options.get("vdim", E))
    for need_weights, average in ((True, True), (True, False), (False, True)):
        if mask == "causal hint" and "add_bias_kv" in options and not need_weights:
            continue  # torch's output differs with and without weights here: docs/differences.md
        results = []
        for layer in (ours, stock):
            leaves = [t.detach().clone().requires_grad_() for t in tensors]
            out, weights = layer(*leaves, need_weights=need_weights, average_attn_weights=average, **MASKS[mask])
            loss = out.square().sum() + (weights.square().sum() if need_weights else 0)
            results.append((out, weights, torch.autograd.grad(loss, [*leaves, *layer.parameters()])))
        assert (results[0][1] is None) == (not need_weights)
        same(results[0], results[1])


ONE_KEY = {
    "float": {"attn_mask": torch.randn(L, 1, generator=torch.Generator().manual_seed(3))},
    "bool": {"attn_mask": torch.arange(L)[:, None] == 2},
    "float 3-D": {"attn_mask": torch.randn(B * H, L, 1, generator=torch.Generator().manual_seed(4))},
    "padding": {"key_padding_mask": torch.tensor([[True], [False]])},
    "float padding": {"key_padding_mask": torch.tensor([[1.5], [-2.0]])},
}


@pytest.mark.parametrize("mask", ONE_KEY)
@pytest.mark.parametrize("extra", [{"add_zero_attn": True}, {"add_bias_kv": True}, FORMS[2]], ids=str)
def test_a_mask_of_one_key_does_not_hold_for_the_extra_keys(extra, mask):
    """A mask of one key looked like one that broadcasts over all keys."""
    ours, stock = pair(**extra, batch_first=True)
    query, key, value = inputs(batch_first=True)
    for need_weights in (False, True):
        results = [
            layer(
                query, key[:, :1], value[:, :1], need_weights=need_weights, average_attn_weights=False, **ONE_KEY[mask]
            )
            for layer in (ours, stock)
        ]
        same(results[0], results[1])


@pytest.mark.parametrize("batch_first", [False, True])
def test_unbatched(batch_first):
    ours, stock = pair(batch_first=batch_first)
    tensors = inputs(batched=False)
    padding = torch.tensor([False] * 5 + [True] * 2)
    mask = torch.rand(H, L, S, generator=torch.Generator().manual_seed(2)) > 0.7
    for options in ({}, {"need_weights": False}, {"average_attn_weights": False}):
        same(
            ours(*tensors, key_padding_mask=padding, attn_mask=mask, **options),
            stock(*tensors, key_padding_mask=padding, attn_mask=mask, **options),
        )


def test_dropout_with_weights_draws_torchs_pattern():
    ours, stock = pair(dropout=0.4)
    results = []
    for layer in (ours, stock):
        torch.manual_seed(9)
        results.append(layer(*inputs()))
    same(*results)
    ours.eval()
    same(ours(*inputs(), need_weights=False), ours(*inputs(), need_weights=False))


def test_dropout_without_weights_follows_the_seed_and_keeps_the_mean():
    ours, _ = pair(dropout=0.4)
    tensors = inputs()
    runs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        runs.append(ours(*tensors, need_weights=False)[0])
    same(runs[0], runs[1])
    assert not torch.allclose(runs[0], runs[2])
    many = torch.stack([ours(*tensors, need_weights=False)[0] for _ in range(400)]).mean(0)
    assert (many - ours.eval()(*tensors, need_weights=False)[0]).abs().max() < 0.15
    ours.dropout = 1.0
    same(ours.train()(*tensors, need_weights=False)[0], ours.out_proj.bias.expand(L, B, E))


def test_a_query_that_may_attend_nothing_gives_zero_weights_and_finite_gradients():
    ours, stock = pair(batch_first=True)
    x = torch.randn(B, L, E, requires_grad=True)
    padding = torch.zeros(B, L, dtype=torch.bool)
    padding[1] = True
    for need_weights in (True, False):
        out, weights = ours(x, x, x, key_padding_mask=padding, need_weights=need_weights)
        same(out[1], ours.out_proj.bias.expand(L, E))
        assert weights is None or weights[1].eq(0).all()
        out.sum().backward()
        assert x.grad.isfinite().all()
    assert stock(x, x, x, key_padding_mask=padding)[0][1].isnan().all()  # stock torch gives NaN


def test_pickle_deepcopy_hooks_and_half():
    ours, stock = pair(batch_first=True, kdim=K, vdim=V)
    tensors = inputs(True, K, V)
    expected = stock(*tensors)
    same(pickle.loads(pickle.dumps(ours))(*tensors), expected)  # noqa: S301 — our own bytes
    same(copy.deepcopy(ours)(*tensors), expected)
    seen = []
    handle = ours.register_forward_hook(lambda module, args, output: seen.append(output[0].shape))
    ours(*tensors)
    handle.remove()
    assert seen == [(B, L, E)]
    torch.testing.assert_close(
        ours.bfloat16()(*(t.bfloat16() for t in tensors))[0].float(), expected[0], atol=2e-2, rtol=2e-2
    )


@pytest.mark.slow
def test_torchscript_compiles_torchs_own_module_with_the_same_parameters():
    ours, stock = pair()
    with pytest.warns((DeprecationWarning, FutureWarning), match="jit"):
        scripted = torch.jit.script(ours)
    same(scripted(*inputs()), stock(*inputs()))
    assert scripted.in_proj_weight.data_ptr() == ours.in_proj_weight.data_ptr()
    with pytest.raises(clearhead.errors.OptionError, match="TorchScript"):
        clearhead.MultiheadAttention(E, H, num_kv_heads=1).__prepare_scriptable__()


def test_num_kv_heads_is_attention_with_repeated_key_heads():
    for options in ({}, {"kdim": K, "vdim": V}, {"add_bias_kv": True, "bias": False}):
        few = clearhead.MultiheadAttention(E, 6, num_kv_heads=2, batch_first=True, **options)
        many = clearhead.MultiheadAttention(E, 6, batch_first=True, **options)
        state = few.state_dict()

        def repeat(x, axis=0):  # (2·D, ...) -> (6·D, ...)
            return x.unflatten(axis, (2, 2)).repeat_interleave(3, axis).flatten(axis, axis + 1)

        for name in ("in_proj_weight", "in_proj_bias"):
            if name in state:
                q, k, v = state[name].split([E, 4, 4])
                state[name] = torch.cat([q, repeat(k), repeat(v)])
        for name in ("k_proj_weight", "v_proj_weight"):
            if name in state:
                state[name] = repeat(state[name])
        for name in ("bias_k", "bias_v"):
            if name in state:
                state[name] = repeat(state[name], 2)
        many.load_state_dict(state)
        tensors = inputs(True, options.get("kdim", E), options.get("vdim", E))
        for need_weights in (True, False):
            same(few(*tensors, need_weights=need_weights), many(*tensors, need_weights=need_weights))


def test_weights_as_a_matrix_equal_the_dense_weights():
    ours, stock = pair(batch_first=True)
    tensors = inputs(True)
    for mask in ("no mask", "both bool", "float mask", "causal hint"):
        dense = stock(*tensors, average_attn_weights=False, **MASKS[mask])
        out, matrix = ours(*tensors, weights="matrix", **MASKS[mask])
        same((out, matrix.to_dense()), dense)
        assert matrix.shape == (B, H, L, S)
    assert ours(*tensors, weights="matrix", need_weights=False)[1] is None
    assert clearhead.MultiheadAttention(E, H, weights="matrix")(*inputs())[1].shape == (B, H, L, S)


@pytest.mark.parametrize("options", [{}, {"add_zero_attn": True}, {"rotary": True, "num_kv_heads": 1}], ids=str)
def test_a_mask_object_equals_its_inverted_dense_mask(options):
    ours = clearhead.MultiheadAttention(E, H, batch_first=True, **options)
    tensors = inputs(True)
    rule = clearhead.masks.causal(offset=1) | clearhead.masks.prefix(1)
    dense = ~rule.dense(L, S)[0, 0]
    for extra in ({}, MASKS["padding"]):
        for need_weights in (True, False):
            same(
                ours(*tensors, attn_mask=rule, need_weights=need_weights, **extra),
                ours(*tensors, attn_mask=dense, need_weights=need_weights, **extra),
            )


@pytest.mark.parametrize(
    "options", [{}, {"rotary": True, "num_kv_heads": 1}, {"batch_first": True, "rotary": True}], ids=str
)
@pytest.mark.parametrize("window", [None, 3])
def test_decode_with_a_cache_equals_the_whole_sequence(options, window):
    layer = clearhead.MultiheadAttention(E, H, **options).eval()
    length = 11
    x = torch.randn(B, length, E) if layer.batch_first else torch.randn(length, B, E)
    axis = 1 if layer.batch_first else 0
    rule = (
        clearhead.masks.causal()
        if window is None
        else clearhead.masks.causal() & clearhead.masks.sliding_window(window)
    )
    whole = layer(x, x, x, attn_mask=rule, need_weights=False)[0]
    cache = clearhead.KVCache(B, layer.num_kv_heads, 11 if window is None else 4, layer.head_dim, window=window)
    with torch.no_grad():
        steps = [
            layer(part, part, part, is_causal=True, cache=cache, need_weights=False)[0]
            for part in x.split([4, 1, 1, 2, 3], axis)
        ]
    same(torch.cat(steps, axis), whole)
    assert cache.length == length


@pytest.mark.parametrize("window", [None, 3])
def test_a_call_that_fails_leaves_the_cache_as_it_was(window):
    layer = clearhead.MultiheadAttention(E, H, rotary=True).eval()
    x = torch.randn(9, B, E)
    cache, untouched = (clearhead.KVCache(B, H, 9, layer.head_dim, window=window) for _ in range(2))
    with torch.no_grad():
        for held in (cache, untouched):
            layer(x[:5], x[:5], x[:5], is_causal=True, cache=held)
        with pytest.raises(clearhead.errors.ShapeError, match="attn_mask does not fit"):
            layer(x[5:7], x[5:7], x[5:7], attn_mask=torch.zeros(2, 99), cache=cache)
        assert cache.length == 5
        same(*(layer(x[5:], x[5:], x[5:], is_causal=True, cache=held)[0] for held in (cache, untouched)))


def test_rotary_logits_depend_only_on_distance():
    layer = clearhead.MultiheadAttention(E, H, batch_first=True, rotary=clearhead.Rotary(E // H, layout="interleaved"))
    x = torch.randn(1, 1, E).expand(1, 6, E)  # the same word six times
    weights = layer(x, x, x, average_attn_weights=False)[1][0, 0].log()
    logits = weights - weights.diagonal()[:, None]
    same(logits[0, :-1], logits[1, 1:])
    assert logits[0].unique().numel() > 1


def test_replace_attention_keeps_every_parameter_and_output():
    torch.manual_seed(0)
    model = torch.nn.Transformer(E, 2, 2, 2, 16, dropout=0.0, batch_first=True)
    source, target = torch.randn(B, S, E), torch.randn(B, L, E)
    expected, before = model(source, target), list(model.parameters())
    report = clearhead.replace_attention(model)
    assert len(report.replaced) == 6
    assert "encoder.layers.0.self_attn" in str(report)
    assert all(a is b for a, b in zip(model.parameters(), before, strict=True))
    same(model(source, target), expected)
    assert list(clearhead.replace_attention(model).left.values()) == ["it is already ours"] * 6

    class Own(torch.nn.MultiheadAttention):
        pass

    assert "forward" in clearhead.replace_attention(Own(E, H)).left[""]
    alone = torch.nn.MultiheadAttention(E, H)
    report = clearhead.replace_attention(alone)
    assert report.replaced == [""]
    assert str(report) == "replaced 1 attention module: the model itself"
    spectral = torch.nn.utils.parametrizations.spectral_norm(torch.nn.MultiheadAttention(E, H), "in_proj_weight")
    assert "replace first, then parametrize" in str(clearhead.replace_attention(spectral))
    assert isinstance(alone, clearhead.MultiheadAttention)


PADDING = torch.tensor([[False] * S, [False] * (S - 3) + [True] * 3])
ENCODER_CALLS = list(itertools.product([True, False], [None, PADDING], [False, True]))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")
@pytest.mark.parametrize(("training", "padding", "causal"), ENCODER_CALLS)
def test_inside_torchs_encoder_our_forward_runs_and_equals_torchs(training, padding, causal, monkeypatch):
    torch.manual_seed(0)
    stock = torch.nn.TransformerEncoderLayer(E, 2, 16, dropout=0.0, batch_first=True)
    encoder = torch.nn.TransformerEncoder(stock, 2).train(training)
    ours = copy.deepcopy(encoder)
    clearhead.replace_attention(ours)
    # A hook on the module would itself make torch call `forward`, so the class is patched.
    calls, forward = [], clearhead.MultiheadAttention.forward
    monkeypatch.setattr(clearhead.MultiheadAttention, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    x = torch.randn(B, S, E)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(S) if causal else None
    options = {
        "mask": mask,
        "src_key_padding_mask": None if padding is None else padding.float() * -1e9 if causal else padding,
    }
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            same(ours(x, **options), encoder(x, **options))
    assert len(calls) >= 4  # two layers, with and without gradients; a nested call calls itself once more


def test_inside_torchs_decoder():
    torch.manual_seed(0)
    decoder = torch.nn.TransformerDecoder(torch.nn.TransformerDecoderLayer(E, 2, 16, 0.0, norm_first=True), 2).eval()
    ours = copy.deepcopy(decoder)
    assert len(clearhead.replace_attention(ours).replaced) == 4
    target, memory = torch.randn(L, B, E), torch.randn(S, B, E)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(L)
    same(ours(target, memory, mask, tgt_is_causal=True), decoder(target, memory, mask, tgt_is_causal=True))
    same(
        ours(target, memory, mask, memory_key_padding_mask=PADDING.float() * -1e9),
        decoder(target, memory, mask, memory_key_padding_mask=PADDING.float() * -1e9),
    )


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_sequences_without_padding(layout):
    ours, _ = pair(batch_first=True)
    parts = [torch.randn(n, E) for n in (3, 5)]
    nested = torch.nested.nested_tensor(parts, layout=layout)
    out, _ = ours(nested, nested, nested, need_weights=False)
    assert out.layout == layout
    for actual, part in zip(out.unbind(), parts, strict=True):
        same(actual, ours(part, part, part)[0])
