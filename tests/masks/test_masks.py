"""The algebra of masks, compared with the rule evaluated entry by entry."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import clearhead
from clearhead import masks
from clearhead.errors import OptionError, ShapeError
from clearhead.masks import BlockState

L, S = 11, 13
generator = torch.Generator().manual_seed(0)
DENSE = torch.rand(2, 3, L, S, generator=generator) > 0.4
IDS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3], [0, 1, 1, 1, 1, 1, 1, 1, 4, 4, 5]])
KEY_IDS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 4, 4, 5])

# Each mask with its rule written a second time, in plain Python.
LEAVES = [
    (masks.causal(), lambda b, h, q, k: k <= q),
    (masks.causal(offset=2), lambda b, h, q, k: k <= q + 2),
    (masks.causal(offset=-3), lambda b, h, q, k: k <= q - 3),
    (masks.causal(torch.tensor([3, -1])), lambda b, h, q, k: k <= q + (3, -1)[b]),
    (masks.sliding_window(1), lambda b, h, q, k: q == k),
    (masks.sliding_window(4), lambda b, h, q, k: -4 < q - k < 4),
    (masks.prefix(5), lambda b, h, q, k: k < 5),
    (masks.padding([7, 12]), lambda b, h, q, k: k < (7, 12)[b]),
    (masks.document(IDS, KEY_IDS), lambda b, h, q, k: IDS[b, q] == KEY_IDS[k]),
    (masks.from_dense(DENSE), lambda b, h, q, k: bool(DENSE[b, h, q, k])),
    (masks.from_dense(DENSE[0, 0]), lambda b, h, q, k: bool(DENSE[0, 0, q, k])),
    (masks.causal().shifted(2), lambda b, h, q, k: k <= q + 2),
]
expressions = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        inner.map(lambda m: (~m[0], lambda b, h, q, k: not m[1](b, h, q, k))),
        st.tuples(inner, inner).map(lambda p: (p[0][0] & p[1][0], lambda *i: p[0][1](*i) and p[1][1](*i))),
        st.tuples(inner, inner).map(lambda p: (p[0][0] | p[1][0], lambda *i: p[0][1](*i) or p[1][1](*i))),
    ),
    max_leaves=4,
)


def entry_by_entry(rule):
    return torch.tensor(
        [[[[bool(rule(b, h, q, k)) for k in range(S)] for q in range(L)] for h in range(3)] for b in range(2)]
    )


@settings(max_examples=25)
@given(expressions, st.sampled_from([1, 3, 4, 20]))
def test_an_expression_equals_its_rule_and_its_block_states_are_right(expression, size):
    mask, rule = expression
    expected = entry_by_entry(rule)
    assert torch.equal(mask.dense(L, S).expand(2, 3, L, S), expected)
    for i, row in enumerate(mask.blocks(L, S, size)):
        for j, state in enumerate(row):
            part = expected[:, :, i * size : (i + 1) * size, j * size : (j + 1) * size]
            assert state is not BlockState.FULL or part.all()
            assert state is not BlockState.EMPTY or not part.any()


@settings(max_examples=25)
@given(expressions)
def test_lower_keeps_every_entry(expression):
    mask, rule = expression
    (low, high), allow = masks.lower(mask, L, S).reach, masks.lower(mask, L, S).allow
    distance = torch.arange(S) - torch.arange(L)[:, None]
    lowered = torch.ones(2, 3, L, S, dtype=torch.bool) if allow is None else allow.expand(2, 3, L, S)
    lowered = lowered & (distance >= (-99 if low is None else low)) & (distance <= (99 if high is None else high))
    assert torch.equal(lowered, entry_by_entry(rule))


@pytest.mark.parametrize("mask", [masks.document(IDS, KEY_IDS), masks.causal() & masks.from_dense(DENSE)], ids=repr)
def test_shifting_before_position_0_is_refused(mask):
    with pytest.raises(OptionError, match="before position 0"):
        mask.shifted(-1)  # an index of -1 would be the last query's row
    assert torch.equal(masks.causal().shifted(-1).dense(L, S), masks.causal(offset=-1).dense(L, S))


@pytest.mark.parametrize(
    ("mask", "reach"),
    [
        (masks.causal() & masks.sliding_window(256), (-255, 0)),
        (masks.causal(offset=5), (None, 5)),
        ((masks.causal() & masks.sliding_window(4)).shifted(10), (7, 10)),
        (~masks.causal(offset=-3) & masks.causal(offset=2), (-2, 2)),
    ],
    ids=repr,
)
def test_windows_and_shifted_causal_masks_lower_to_a_band_without_a_tensor(mask, reach):
    lowered = masks.lower(mask, L, S)
    assert (lowered.reach, lowered.allow, lowered.bias) == (reach, None, None)
    assert masks.is_small(mask)


@pytest.mark.parametrize(
    ("mask", "size", "expected"),
    [
        (masks.causal(), 4, ["MEEE", "FMEE", "FFME"]),
        (masks.sliding_window(4), 4, ["FMEE", "MFME", "EMFM"]),
        (masks.sliding_window(8), 4, ["FFME", "FFFM", "MFFF"]),
        (masks.prefix(8), 4, ["FFEE", "FFEE", "FFEE"]),
        (masks.padding([4, 8]), 4, ["FMEE", "FMEE", "FMEE"]),
        (masks.document([0] * 4 + [1] * 7, torch.tensor([0] * 4 + [1] * 9)), 4, ["FEEE", "EFFF", "EFFF"]),
        (masks.causal() & masks.sliding_window(4) | masks.prefix(4), 4, ["FEEE", "FMEE", "FMME"]),
        (~masks.causal(), 4, ["MFFF", "EMFF", "EEMF"]),
    ],
    ids=repr,
)
def test_known_blocks_are_reported(mask, size, expected):
    letters = {BlockState.EMPTY: "E", BlockState.FULL: "F", BlockState.MIXED: "M"}
    assert ["".join(letters[state] for state in row) for row in mask.blocks(L, S, size)] == expected


@pytest.mark.slow
@settings(max_examples=8)
@given(expressions)
def test_mask_mod_gives_flex_attention_the_same_mask(expression):
    from torch.nn.attention.flex_attention import create_mask

    mask, rule = expression
    assert torch.equal(create_mask(mask.mask_mod, 2, 3, L, S, device="cpu"), entry_by_entry(rule))


def test_to_block_mask_finds_the_blocks():
    block_mask = (masks.causal() & masks.padding([130, 300])).to_block_mask(256, 384)
    assert block_mask.shape == (2, 1, 256, 384)
    assert block_mask.to_dense()[:, 0].tolist() == [[[1, 0, 0], [1, 1, 0]], [[1, 0, 0], [1, 1, 0]]]


@pytest.mark.parametrize("slopes", [8, [0.5, 0.25], torch.tensor([1, 2]), torch.ones(1, 2)])
def test_alibi_refuses_slopes_of_another_form(slopes):
    with pytest.raises(ShapeError, match=r"one float slope per head.*Press et al"):
        masks.alibi(slopes)


def test_alibi_lowers_to_slopes_without_a_dense_bias():
    slopes = torch.tensor([0.5, 0.25])
    lowered = masks.lower((masks.causal() & masks.alibi(slopes)).shifted(3), L, S)
    assert (lowered.reach, lowered.allow, lowered.bias, lowered.first_query) == ((None, 3), None, None, 3)
    assert torch.equal(lowered.alibi, slopes)
    assert masks.is_small(masks.alibi(slopes) & masks.padding([3, 4]))
    twice = masks.lower(masks.alibi(slopes) & masks.alibi(slopes) & masks.relative(torch.ones(3)), L, S)
    assert torch.equal(twice.alibi, 2 * slopes)
    assert twice.bias.expand(1, 1, L, S).eq(1).all()


@pytest.mark.parametrize("causal", [True, False])
def test_a_shifted_mask_gives_later_queries_their_rows(causal):
    slopes, table = torch.tensor([0.5, 0.25]), torch.randn(2, 7, generator=torch.Generator().manual_seed(1))
    rule = masks.alibi(slopes) & masks.relative(table) & masks.prefix(S)
    rule = rule & masks.causal() if causal else rule
    q, k, v = (torch.randn(1, 2, rows, 8, generator=torch.Generator().manual_seed(2)) for rows in (S, S, S))
    whole, late = clearhead.attention(q, k, v, rule), clearhead.attention(q[:, :, 4:], k, v, rule.shifted(4))
    torch.testing.assert_close(late, whole[:, :, 4:])


def test_biases_are_added_and_get_gradients():
    slopes = torch.tensor([0.5, 0.25], requires_grad=True)
    table = torch.randn(2, 7, requires_grad=True)
    rule = masks.causal() & masks.alibi(slopes) & masks.relative(table)
    q, k, v = torch.randn(3, 1, 2, 5, 8)
    bias = torch.empty(2, 5, 5)
    for h, i, j in itertools.product(range(2), range(5), range(5)):
        bias[h, i, j] = -slopes[h] * abs(i - j) + table[h, min(max(j - i, -3), 3) + 3]
    mask = bias.masked_fill(~torch.ones(5, 5, dtype=torch.bool).tril(), -torch.inf)
    ours, expected = clearhead.attention(q, k, v, rule), clearhead.attention(q, k, v, mask)
    torch.testing.assert_close(ours, expected)
    ours_grad = torch.autograd.grad(ours.square().sum(), (slopes, table))
    torch.testing.assert_close(ours_grad, torch.autograd.grad(expected.square().sum(), (slopes, table)))


def test_a_bias_is_refused_where_a_mask_is_needed():
    bias = masks.alibi(torch.ones(2))
    for wrong in (lambda: bias | masks.causal(), lambda: masks.causal() | bias, lambda: ~bias):
        with pytest.raises(clearhead.errors.OptionError, match="bias"):
            wrong()
    with pytest.raises(clearhead.errors.OptionError, match="BlockMask"):
        (masks.causal() & bias).to_block_mask(4, 4)
    assert repr(masks.causal() & bias & masks.prefix(2)) == "causal() & prefix(2) & alibi(2 slopes)"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: masks.sliding_window(0), "at least 1"),
        (lambda: masks.causal(torch.zeros(2)), "one per batch entry"),
        (lambda: masks.padding(torch.ones(2, 3, dtype=torch.bool)), "mask.sum"),
        (lambda: masks.document(torch.ones(3)), "integer ids"),
        (lambda: masks.from_dense(torch.zeros(3, 3)), "True = may attend"),
        (lambda: masks.alibi(torch.ones(2, 2)), "slope per head"),
        (lambda: masks.relative(torch.ones(2, 4)), "2·R"),
        (lambda: (masks.padding([1, 2]) & masks.padding([1, 2, 3])).sizes(), "different B"),
    ],
)
def test_mistakes_are_named(wrong, message):
    with pytest.raises(clearhead.errors.ClearheadError, match=message):
        wrong()


def test_print_draws_the_mask():
    assert str(masks.causal() & masks.padding([2])).splitlines()[1:4] == [
        "■···············",
        "■■··············",
        "■■··············",
    ]
    assert str(masks.from_dense(torch.eye(3, dtype=torch.bool))).splitlines()[1:] == ["■··", "·■·", "··■"]


LARGE = {
    "blocks": masks.causal() & masks.sliding_window(100) | masks.prefix(3),
    "documents": masks.causal() & masks.document(torch.arange(700) // 90),
    "window": masks.causal() & masks.sliding_window(100),
    "biased": masks.causal() & masks.alibi(torch.tensor([0.1, 0.2])),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_rule_never_allocates_an_l_by_s_tensor(name, monkeypatch):
    from torch.utils._python_dispatch import TorchDispatchMode

    from clearhead.multihead import chunked_rule

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, torch.Tensor):
                    Largest.numel = max(Largest.numel, tensor.untyped_storage().nbytes())
            return result

    length, heads, rule = 700, 2, LARGE[name]
    monkeypatch.setattr("clearhead.kernels.calls.prepare.RULE_ENTRIES", 0)
    monkeypatch.setattr("clearhead.kernels.portable.blockwise.BLOCK", 1 << 15)
    monkeypatch.setattr(chunked_rule, "ROWS", 64)
    monkeypatch.setattr(chunked_rule, "COLUMNS", 32)
    # Under the mode the call would take the custom operator; this test is about the fallback.
    monkeypatch.setattr("clearhead.kernels.modes.records_operators", lambda *tensors: False)
    q, k, v = (torch.randn(1, heads, length, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    with Largest():
        out = clearhead.attention(q, k, v, rule)
        lowered = torch.autograd.grad(out.square().sum(), (q, k, v))
    assert Largest.numel < heads * length * length * 8 / 4
    dense = rule.dense(length)
    if rule.bias is not None:
        dense = rule.bias.bias_block(range(length), range(length)).double().masked_fill(~dense, -torch.inf)
    expected = clearhead.attention(q, k, v, dense)
    near = {"rtol": 2e-6, "atol": 2e-6}  # a rule's bias is float32, so it is rounded when it is evaluated
    torch.testing.assert_close(out, expected, **near)
    torch.testing.assert_close(lowered, torch.autograd.grad(expected.square().sum(), (q, k, v)), **near)
