"""Every common mistake has its own message, and the type of error that torch raises for it."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from packaging.version import Version

import clearhead
from clearhead import masks

B, H, L, S, D = 2, 3, 5, 7, 4
q, k, v = torch.randn(B, H, L, D), torch.randn(B, H, S, D), torch.randn(B, H, S, D)
six = torch.randn(B, 6, L, D)

# name -> (arguments, options, what the message must contain)
FUNCTION = {
    "no tensor": ((None, k, v), {}, ["query is a NoneType", "torch.Tensor"]),
    "one axis": ((q[0, 0, 0], k, v), {}, ["query has 1 axes", "unsqueeze"]),
    "key width": ((q, k[..., :3], v), {}, ["key has head_dim 3, query has head_dim 4", "B,H,S,D", "(2, 3, 7, 3)"]),
    "value length": ((q, k, v[:, :, :5]), {}, ["key has length 7, value has length 5", "one value"]),
    "batch": ((q, torch.randn(3, H, S, D), torch.randn(3, H, S, D)), {}, ["batch axes", "broadcast", "(3, 3, 7, 4)"]),
    "heads": ((six, k, v), {}, ["query has 6 heads, key 3", "enable_gqa=True"]),
    "heads, not even grouped": ((q, k[:, :2], v[:, :2]), {}, ["query has 3 heads, key 2", "the same H"]),
    "gqa": ((q, k[:, :2], v[:, :2]), {"enable_gqa": True}, ["key has 2 heads", "does not divide query's 3"]),
    "dtype": ((q, k.double(), v), {}, ["key is torch.float64, query is torch.float32", "key.to("]),
    "integers": ((q.long(), k.long(), v.long()), {}, ["torch.int64", "bfloat16"]),
    "complex": ((q.cfloat(), k.cfloat(), v.cfloat()), {}, ["complex64"]),
    "device": ((q, k.to("meta"), v), {}, ["key is on meta, query is on cpu"]),
    "causal and mask": ((q, k, v, torch.zeros(L, S)), {"is_causal": True}, ["masks.causal() & your_mask"]),
    "causal is a word": ((q, k, v), {"is_causal": "no"}, ["is_causal is 'no'", "True or False"]),
    "causal is none": ((q, k, v), {"is_causal": None}, ["is_causal is None", "True or False"]),
    "causal is a mask": ((q, k, v), {"is_causal": torch.ones(L, S)}, ["is_causal is a Tensor", "attn_mask"]),
    "causal is a rule": ((q, k, v), {"is_causal": masks.causal()}, ["is_causal is a", "attn_mask"]),
    "mask shape": ((q, k, v, torch.zeros(L, S + 1)), {}, ["does not broadcast", "(5, 8)", "axes B,H,L,S"]),
    "mask transposed": ((q, k, v, torch.zeros(S, L)), {}, ["transposed", "attn_mask.mT"]),
    "mask of too many axes": ((q, k, v, torch.zeros(1, B, H, L, S)), {}, ["does not broadcast"]),
    "mask of one axis": ((q, k, v, torch.zeros(S)), {}, ["attn_mask[None, :]"]),
    "mask of integers": ((q, k, v, torch.ones(L, S).long()), {}, ["torch.int64", "attn_mask.bool()"]),
    "mask of doubles": ((q, k, v, torch.ones(L, S).double()), {}, ["torch.float64", "attn_mask.to(query.dtype)"]),
    "mask no tensor": ((q, k, v, [[True]]), {}, ["attn_mask is a list", "clearhead.masks"]),
    "mask on another device": ((q, k, v, torch.zeros(L, S, device="meta")), {}, ["attn_mask is on meta"]),
    "dropout": ((q, k, v), {"dropout_p": 1.5}, ["dropout_p is 1.5", "0 <= dropout_p <= 1"]),
    "scale": ((q, k, v), {"scale": "small"}, ["scale is a str"]),
}  # fmt: skip

# torch computes these without an error when its CPU flash kernel takes the call (docs/differences.md).
TORCH_IS_SILENT = {"value length", "mask on another device"}
if Version(torch.__version__) < Version("2.14"):
    TORCH_IS_SILENT |= {"causal and mask"}


def error_of(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except Exception as error:  # noqa: BLE001 — any error is the result
            return error
    return None


def check(ours, theirs, fragments):
    assert isinstance(ours, clearhead.errors.ClearheadError), ours
    assert theirs is None or isinstance(ours, type(theirs)), f"torch raises {type(theirs)}: {theirs}"
    for words in fragments:
        assert words in str(ours)


@pytest.mark.parametrize("name", FUNCTION)
def test_errors_of_the_function(name):
    arguments, options, fragments = FUNCTION[name]
    theirs = error_of(lambda: F.scaled_dot_product_attention(*arguments, **options))
    assert (theirs is None) == (name in TORCH_IS_SILENT)
    check(error_of(lambda: clearhead.attention(*arguments, **options)), theirs, fragments)


OWN = {
    "negative dropout": ((q, k, v), {"dropout_p": -0.5}, ["dropout_p is -0.5"]),
    "softcap": ((q, k, v), {"softcap": 0.0}, ["softcap is 0.0", "positive"]),
    "sinks shape": ((q, k, v), {"sinks": torch.zeros(2)}, ["shape (2,)", "(3,)"]),
    "sinks dtype": ((q, k, v), {"sinks": torch.zeros(3).long()}, ["float tensor"]),
    "rule and causal": ((q, k, v, masks.prefix(2)), {"is_causal": True}, ["prefix(2)", "masks.causal() &"]),
    "rule for another batch": ((q, k, v, masks.padding([1, 2, 3])), {}, ["B = 3", "B = 2", "padding([1, 2, 3])"]),
    "rule for other heads": ((q, k, v, masks.alibi(torch.ones(2))), {}, ["H = 2", "H = 3"]),
    "rule for other keys": ((q, k, v, masks.document(torch.zeros(5).long())), {}, ["S = 5", "S = 7"]),
    "kernel": ((q, k, v), {"kernel": "abacus"}, ["abacus", "reference"]),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_errors_of_our_own_arguments(name):
    arguments, options, fragments = OWN[name]
    check(error_of(lambda: clearhead.attention(*arguments, **options)), None, fragments)


E, KD, VD = 12, 10, 14
x, y = torch.randn(L, B, E), torch.randn(S, B, E)
CALLS = {
    "query width": ({}, (x[..., :8], y, y), {}, ["query is 8 wide, expected embed_dim = 12"]),
    "key width": ({}, (x, y[..., :10], y), {}, ["key is 10 wide", "kdim=10"]),
    "value width": ({"kdim": KD}, (x, y[..., :10], y[..., :9]), {}, ["value is 9 wide", "vdim=9"]),
    "length": ({}, (x, y, y[:5]), {}, ["key and value must share", "S,B,E"]),
    "batch": ({}, (x, torch.randn(S, 3, E), torch.randn(S, 3, E)), {}, ["query has batch 2, key has batch 3"]),
    "batch_first mix-up": (
        {}, (x.transpose(0, 1), y.transpose(0, 1), y.transpose(0, 1)), {},
        ["query has batch 5, key has batch 7", "The shapes suggest batch_first=True"],
    ),
    "axes": ({}, (x, y[0], y[0]), {}, ["key has 2 axes and query has 3"]),
    "four axes": ({}, (x[None], y[None], y[None]), {}, ["query has 4 axes"]),
    "mask shape": ({}, (x, y, y), {"attn_mask": torch.zeros(L, S + 1)}, ["(5, 8)", "(5, 7) or (6, 5, 7)"]),
    "mask transposed": ({}, (x, y, y), {"attn_mask": torch.zeros(S, L)}, ["transposed", "attn_mask.mT"]),
    "mask per batch entry": (
        {}, (x, y, y), {"attn_mask": torch.zeros(B, L, S)}, ["repeat_interleave(num_heads, 0)", "6 slices"],
    ),
    "mask of four axes": ({}, (x, y, y), {"attn_mask": torch.zeros(B, H, L, S)}, ["attn_mask.flatten(0, 1)"]),
    "mask of integers": ({}, (x, y, y), {"attn_mask": torch.zeros(L, S).long()}, ["torch.int64", "may not attend"]),
    "padding shape": ({}, (x, y, y), {"key_padding_mask": torch.zeros(B, L).bool()}, ["(2, 5)", "(2, 7)", "B,S"]),
    "padding of integers": ({}, (x, y, y), {"key_padding_mask": torch.zeros(B, S).long()}, ["key_padding_mask.bool()"]),
    "padding unbatched": ({}, (x[:, 0], y[:, 0], y[:, 0]), {"key_padding_mask": torch.zeros(1, S).bool()}, ["(7,)"]),
    "causal without mask": ({}, (x, y, y), {"is_causal": True}, ["only promises", "generate_square_subsequent_mask"]),
    "dtype": ({}, (x.double(), y.double(), y.double()), {}, ["float64", "float32", ".to("]),
    "device": ({}, (x, y.to("meta"), y), {}, ["key is on meta"]),
}  # fmt: skip


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("name", CALLS)
def test_errors_of_the_module(name, need_weights):
    build, arguments, options, fragments = CALLS[name]
    ours, stock = clearhead.MultiheadAttention(E, H, **build), torch.nn.MultiheadAttention(E, H, **build)
    theirs = error_of(lambda: stock(*arguments, need_weights=need_weights, **options))
    assert theirs is not None
    check(error_of(lambda: ours(*arguments, need_weights=need_weights, **options)), theirs, fragments)


@pytest.mark.parametrize(
    ("arguments", "options", "fragments"),
    [
        ((12, 5), {}, ["embed_dim 12 is not divisible by num_heads 5", "1, 2, 3, 4, 6, 12"]),
        ((0, 1), {}, ["greater than 0"]),
        ((12, -1), {}, ["greater than 0"]),
    ],
)
def test_errors_of_the_constructor(arguments, options, fragments):
    theirs = error_of(lambda: torch.nn.MultiheadAttention(*arguments))
    check(error_of(lambda: clearhead.MultiheadAttention(*arguments, **options)), theirs, fragments)


@pytest.mark.parametrize(
    ("call", "fragments"),
    [
        (lambda: clearhead.MultiheadAttention(12, 6, num_kv_heads=4), ["num_kv_heads 4 does not divide num_heads 6", "1, 2, 3, 6"]),
        (lambda: clearhead.MultiheadAttention(12, 6, weights="sparse"), ["'sparse'", "'matrix'"]),
        (lambda: clearhead.MultiheadAttention(12, 6)(x, y, y, weights="sparse"), ["'sparse'", "'matrix'"]),
        (lambda: clearhead.MultiheadAttention(12, 4, rotary=True), ["pairs"]),
        (lambda: clearhead.MultiheadAttention.from_shared_heads({"keys.weight": x}, 2), ["no queries.weight"]),
        (lambda: clearhead.MultiheadAttention.from_shared_heads({}), ["num_heads"]),
        (
            lambda: clearhead.MultiheadAttention.from_shared_heads(
                {f"{n}.weight": torch.ones(12, 12) for n in ("keys", "values", "queries", "fc_out")}, 3
            ),
            ["in_proj_weight"],
        ),
    ],
)  # fmt: skip
def test_errors_of_our_own_options_of_the_module(call, fragments):
    check(error_of(call), None, fragments)


def test_a_float_mask_of_zeros_and_ones_warns():
    zero_one = (torch.rand(L, S) > 0.5).float()
    with pytest.warns(UserWarning, match=r"attn_mask\.bool"):
        clearhead.attention(q, k, v, zero_one)
    layer = clearhead.MultiheadAttention(E, H)
    with pytest.warns(UserWarning, match="masks nothing"):
        layer(x, y, y, attn_mask=zero_one)
    with pytest.warns(UserWarning, match="key_padding_mask is a float mask"):
        layer(x, y, y, key_padding_mask=(torch.arange(S) > 3).float().expand(B, S))
    # Masks that are meant to be added do not warn (warnings are errors here).
    for fine in (torch.zeros(L, S), torch.randn(L, S), zero_one.requires_grad_(), zero_one * -1e9):
        clearhead.attention(q, k, v, fine)
