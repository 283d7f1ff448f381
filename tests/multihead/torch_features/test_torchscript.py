"""torch.jit.trace and torch.jit.script: what they record or compile, and how the rest is refused."""

import io

import pytest
import torch
from torch import nn
from torch.nn.attention.bias import causal_lower_right

import clearhead
from clearhead import errors, masks

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")  # all of it is deprecated in torch 2.13

B, H, H_KV, L, S, D = 2, 6, 3, 5, 7, 11
SLOPES = torch.linspace(0.1, 0.7, H)


def heads(length: int = L, keys: int = S, batch: int = B, kv: int = H) -> tuple[torch.Tensor, ...]:
    return torch.randn(batch, H, length, D), torch.randn(batch, kv, keys, D), torch.randn(batch, kv, keys, D)


class Called(nn.Module):
    """A function and the module whose parameters it uses, as torch.jit.trace needs them."""

    def __init__(self, function, module=None):
        super().__init__()
        self.function, self.module = function, module

    def forward(self, *args):
        return self.function(*args)


def traced(function, args, *others, module=None):
    """Trace with `args`; compare outputs and gradients with eager ones, for `args` and for tensors of other sizes."""
    net = Called(function, module)
    script = torch.jit.trace(net, args)
    for given in (args, *others):
        answers = []
        for call in (net, script):
            tensors = [x.clone().requires_grad_(x.is_floating_point()) for x in given]
            out = call(*tensors)
            first = out[0] if isinstance(out, tuple) else out
            first.square().sum().backward()
            answers.append((out, [x.grad for x in tensors if x.is_floating_point()]))
        torch.testing.assert_close(*answers)
    return script


FUNCTIONS = {
    "plain": (lambda q, k, v: clearhead.attention(q, k, v), True),
    "causal": (lambda q, k, v: clearhead.attention(q, k, v, is_causal=True), True),
    "lse": (lambda q, k, v: clearhead.attention(q, k, v, return_lse=True), True),
    "options": (lambda q, k, v: clearhead.attention(q, k, v, softcap=2.0, sinks=SLOPES, kernel="torch"), True),
    "own scale": (lambda q, k, v: clearhead.attention(q, k, v, scale=q.shape[-1] ** -0.5), True),
    "masks.causal": (lambda q, k, v: clearhead.attention(q, k, v, masks.causal()), True),
    "masks": (lambda q, k, v: clearhead.attention(q, k, v, masks.causal() & masks.alibi(SLOPES)), False),
    "causal bias": (lambda q, k, v: clearhead.attention(q, k, v, causal_lower_right(L, S)), False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_function_is_traced_for_any_size(name: str) -> None:
    function, any_size = FUNCTIONS[name]
    traced(function, heads(), *([heads(3, 13, 1)] if any_size else []))


def test_shapes_groups_and_masks_are_traced() -> None:
    traced(lambda q, k, v: clearhead.attention(q, k, v, enable_gqa=True), heads(kv=H_KV), heads(3, 13, 1, H_KV))
    for axes in (3, 2):
        small, other = ([x[(0,) * (4 - axes)] for x in heads(*sizes)] for sizes in ((L, S), (3, 13)))
        traced(clearhead.attention, tuple(small), tuple(other))
        rule = masks.causal() & masks.sliding_window(3)
        traced(lambda q, k, v, rule=rule: clearhead.attention(q, k, v, rule), tuple(small))
    for mask, other in ((torch.rand(L, S) < 0.7, torch.rand(3, 13) < 0.7), (torch.randn(L, S), torch.randn(3, 13))):
        traced(clearhead.attention, (*heads(), mask), (*heads(3, 13), other))


def test_a_trace_checks_its_inputs_and_survives_saving() -> None:
    script = traced(clearhead.attention, heads())
    with pytest.raises(RuntimeError, match="key has length 13, value has length 7"):
        script(*heads()[:1], torch.randn(B, H, 13, D), heads()[2])
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    buffer.seek(0)
    given = heads()
    torch.testing.assert_close(torch.jit.load(buffer)(*given), clearhead.attention(*given))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_first": False}, {"rotary": True}, {"num_kv_heads": 1}, {"add_bias_kv": True, "add_zero_attn": True}],
    ids=str,
)
@pytest.mark.parametrize("need_weights", [True, False])
def test_the_module_is_traced_for_any_size(options, need_weights: bool) -> None:
    layer = clearhead.MultiheadAttention(12, 3, **({"batch_first": True} | options))
    traced(
        lambda x: layer(x, x, x, need_weights=need_weights)[0],
        (torch.randn(B, L, 12),),
        (torch.randn(3, S, 12),),
        module=layer,
    )


@pytest.mark.slow
@pytest.mark.parametrize("need_weights", [True, False])
def test_the_modules_masks_are_traced(need_weights: bool) -> None:
    layer = clearhead.MultiheadAttention(12, 3, batch_first=True)

    def call(x, mask=None, padding=None, causal=False):
        return layer(x, x, x, attn_mask=mask, key_padding_mask=padding, is_causal=causal, need_weights=need_weights)[0]

    def sizes(n):
        causal = torch.ones(n, n, dtype=torch.bool).triu(1)
        padding = torch.zeros(B, n, dtype=torch.bool)
        padding[1, n - 2 :] = True
        return torch.randn(B, n, 12), causal, padding

    for n in (L,):
        small, other = sizes(n), sizes(S)
        traced(call, small[:2], other[:2], module=layer)
        traced(call, small, other, module=layer)
        traced(lambda x, m: call(x, m, causal=True), small[:2], other[:2], module=layer)
        traced(
            lambda x, m: call(x, m),
            (small[0], torch.randn(3 * B, L, L)),
            (other[0], torch.randn(3 * B, S, S)),
            module=layer,
        )
        traced(lambda x: call(x, masks.causal()), small[:1], other[:1], module=layer)
        traced(lambda x: call(x, masks.causal() & masks.sliding_window(2)), small[:1], module=layer)


@pytest.mark.slow
def test_rotary_and_an_encoder_are_traced() -> None:
    rotary = clearhead.Rotary(12, width=4)
    traced(lambda x: rotary(x, start=3), (torch.randn(B, H, L, 12),), (torch.randn(1, H, S, 12),))
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(12, 3, 16, dropout=0.0, batch_first=True), 2, enable_nested_tensor=False
    )
    clearhead.replace_attention(encoder)
    for net in (encoder.train(), encoder.eval()):
        traced(lambda x, net=net: net(x), (torch.randn(B, L, 12),), (torch.randn(3, S, 12),), module=net)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda q, k, v: clearhead.attention(q, k, v, return_matrix=True), "return_matrix"),
        (lambda q, k, v: clearhead.hard_attention(q, k, v), "hard_attention"),
        (lambda q, k, v: clearhead.attention_varlen(q[0], q[0], q[0], OFFSETS), "attention_varlen"),
        (lambda q, k, v: clearhead.AttentionMatrix(q, k) @ v, "an AttentionMatrix"),
        (lambda q, k, v: clearhead.KVCache(B, H, 16, D).append(k, v), "a KVCache"),
    ],
    ids=["matrix", "hard", "varlen", "AttentionMatrix", "KVCache"],
)
def test_functions_that_cannot_be_traced_are_refused(function, names: str) -> None:
    with pytest.raises(errors.OptionError, match=f"torch.jit.trace cannot record {names}.* Use torch.compile"):
        torch.jit.trace(function, heads())


OFFSETS = torch.tensor([0, 2, H])


def scripted_call(q, k, v):
    return clearhead.attention(q, k, v, is_causal=True, softcap=2.0)


def scripted_mask(q, k, v, mask):
    return clearhead.attention(q, k, v, mask, scale=0.5)


def scripted_lse(q, k, v):
    return torch.ops.clearhead.attention_with_lse(q, k, v)


def scripted_wrong_lse(q, k, v):
    return clearhead.attention(q, k, v, return_lse=True)


def test_a_scripted_function_may_call_ours() -> None:
    q, k, v = heads()
    torch.testing.assert_close(torch.jit.script(scripted_call)(q, k, v), scripted_call(q, k, v))
    mask = torch.rand(L, S) < 0.7
    torch.testing.assert_close(torch.jit.script(scripted_mask)(q, k, v, mask), scripted_mask(q, k, v, mask))
    expected = clearhead.attention(q, k, v, return_lse=True)
    torch.testing.assert_close(torch.jit.script(scripted_lse)(q, k, v), expected)
    with pytest.raises(RuntimeError, match="in TorchScript attention returns only the output"):
        torch.jit.script(scripted_wrong_lse)(q, k, v)


class Subclass(nn.TransformerEncoderLayer):
    pass


MODELS = {
    "attention": lambda: nn.MultiheadAttention(12, 3, batch_first=True),
    "layer": lambda: nn.TransformerEncoderLayer(12, 3, 16, dropout=0.0, batch_first=True),
    "subclass": lambda: Subclass(12, 3, 16, dropout=0.0, batch_first=True),
    "encoder": lambda: nn.TransformerEncoder(
        Subclass(12, 3, 16, dropout=0.0, batch_first=True), 2, enable_nested_tensor=False
    ),
    "decoder": lambda: nn.TransformerDecoderLayer(12, 3, 16, dropout=0.0, batch_first=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("named", ["replaced", "under torch's name"])
@pytest.mark.parametrize("name", MODELS)
def test_models_around_our_module_are_scripted(name: str, named: str, monkeypatch) -> None:
    if named != "replaced":  # as in a program that replaces torch's name with our class
        for place in (nn, nn.modules.activation, nn.modules.transformer):
            monkeypatch.setattr(place, "MultiheadAttention", clearhead.MultiheadAttention)
    model = MODELS[name]()
    if named == "replaced":
        assert clearhead.replace_attention(model).replaced
    x = torch.randn(B, L, 12)
    args = {"attention": (x, x, x), "decoder": (x, x)}.get(name, (x,))
    for net in (model.train(), model.eval()):
        script = torch.jit.script(net)
        with torch.set_grad_enabled(net.training):
            torch.testing.assert_close(script(*args), net(*args))


def test_a_module_that_torch_cannot_express_is_refused() -> None:
    with pytest.raises(errors.OptionError, match="no num_kv_heads and no rotary"):
        torch.jit.script(clearhead.MultiheadAttention(12, 3, num_kv_heads=1))
