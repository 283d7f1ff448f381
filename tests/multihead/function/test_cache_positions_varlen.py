"""The KV cache, rotary positions, and variable-length sequences without padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import clearhead
from clearhead import masks
from clearhead.errors import CacheFullError, DtypeError, OptionError, ShapeError

B, H, H_KV, D, E = 2, 4, 2, 6, 5


@settings(max_examples=20)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.sampled_from([None, 1, 3, 4]), st.integers(0, 99))
def test_decode_with_a_cache_equals_the_whole_sequence(chunks, window, seed):
    torch.manual_seed(seed)
    length = sum(chunks)
    q, k, v = (torch.randn(B, h, length, d) for h, d in ((H, D), (H_KV, D), (H_KV, E)))
    rule = masks.causal() if window is None else masks.causal() & masks.sliding_window(window)
    whole = clearhead.attention(q, k, v, rule, enable_gqa=True)
    cache = clearhead.KVCache(B, H_KV, length if window is None else 5, D, value_dim=E, window=window)
    steps = []
    for a, b, c in zip(*(t.split(chunks, 2) for t in (q, k, v)), strict=True):
        keys, values = cache.append(b, c)
        steps.append(clearhead.attention(a, keys, values, cache.mask(a.shape[2]), enable_gqa=True))
    torch.testing.assert_close(torch.cat(steps, 2), whole)
    assert cache.length == length


def test_an_overflow_is_refused_and_leaves_the_cache_unchanged():
    cache = clearhead.KVCache(1, 1, 5, 2)
    k = torch.arange(8.0).view(1, 1, 4, 2)
    cache.append(k, k)
    for new in (2, 9):
        more = torch.full((1, 1, new, 2), 99.0)
        with pytest.raises(CacheFullError, match=f"4 of 5 positions, so {new} more"):
            cache.append(more, more)
        assert torch.equal(cache.keys, k)
        assert (cache.length, cache.held) == (4, 4)
    cache.append(k[:, :, :1], k[:, :, :1])
    assert cache.held == 5
    rolling = clearhead.KVCache(1, 1, 2, 2, window=3)
    rolling.append(k[:, :, :2], k[:, :, :2])
    with pytest.raises(CacheFullError, match="at most 2"):
        rolling.append(k, k)
    assert torch.equal(rolling.keys, k[:, :, :2])


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 4])
def test_a_matrix_of_a_step_does_not_change_when_the_cache_is_overwritten(window):
    layer = clearhead.MultiheadAttention(12, 3, batch_first=True, weights="matrix").eval()
    cache = clearhead.KVCache(1, 3, 5, 4, window=window)
    steps = []
    for _ in range(8):
        if window is None and cache.held == 5:
            cache.crop(1)
        matrix = layer(*[torch.randn(1, 1, 12)] * 3, cache=cache)[1]
        steps.append((matrix, matrix.to_dense()))
    for matrix, dense in steps:
        torch.testing.assert_close(matrix.to_dense(), dense)


def test_crop_reset_and_reorder():
    cache = clearhead.KVCache(2, 1, 6, 2)
    k = torch.randn(2, 1, 5, 2)
    cache.append(k, k)
    cache.reorder(torch.tensor([1, 1]))
    assert torch.equal(cache.keys, k[[1, 1]])
    cache.crop(3)
    assert torch.equal(cache.values, k[[1, 1], :, :3])
    assert cache.length == 3
    with pytest.raises(OptionError, match=r"crop\(4\): 3 positions were appended"):
        cache.crop(4)
    cache.reset()
    assert cache.held == cache.length == 0


@pytest.mark.slow
@settings(max_examples=30)
@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from([0, 0, 0, 2, 5])), min_size=5, max_size=9),
    st.integers(0, 99),
)
def test_a_window_after_a_crop_has_the_same_keys_as_before(window, steps, seed):
    """Append and crop repeatedly; a crop that is impossible is refused and changes nothing."""
    torch.manual_seed(seed)
    q, k, v = torch.randn(3, B, H_KV, 27, D)
    whole = clearhead.attention(q, k, v, masks.causal() & masks.sliding_window(window))
    cache = clearhead.KVCache(B, H_KV, 3, D, window=window)
    for new, forgotten in steps:
        here = slice(cache.length, cache.length + new)
        keys, values = cache.append(k[:, :, here], v[:, :, here])
        torch.testing.assert_close(clearhead.attention(q[:, :, here], keys, values, cache.mask(new)), whole[:, :, here])
        target = max(0, cache.length - forgotten)
        try:
            cache.crop(target)
        except OptionError:
            assert forgotten > new  # the positions of the last append can always be removed
            target = here.stop
        assert cache.length == target


@pytest.mark.parametrize("window", [None, 4])
def test_a_call_that_fails_leaves_the_cache_as_it_was(window):
    layer = clearhead.MultiheadAttention(12, 3, batch_first=True).eval()
    cache = clearhead.KVCache(1, 3, 7, 4, window=window, dtype=torch.float64)  # of another dtype than the layer
    x = torch.randn(1, 5, 12)
    with torch.no_grad(), pytest.raises(DtypeError):
        layer(x[:, :3], x, x, cache=cache, need_weights=False)
    assert (cache.length, cache.held) == (0, 0)


def test_tensors_that_do_not_fit_the_cache_are_refused():
    cache = clearhead.KVCache(2, 2, 6, 4)
    good = torch.randn(2, 2, 1, 4)
    for bad in (good[:1], good[:, :1], good[..., :3], good[0]):
        with pytest.raises(ShapeError, match="does not fit the cache"):
            cache.append(bad, good)
    with pytest.raises(ShapeError, match="key has 1 positions"):
        cache.append(good, torch.randn(2, 2, 2, 4))
    with pytest.raises(OptionError, match="no_grad"):
        cache.append(good.clone().requires_grad_(), good)
    with pytest.raises(OptionError, match="at least 1"):
        clearhead.KVCache(1, 1, 0, 4)
    assert cache.held == 0


HF_SCALINGS = {
    "default": {"rope_type": "default", "rope_theta": 1e4},
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 32, "rope_theta": 1e4},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e4},
}  # fmt: skip


@pytest.mark.parametrize("kind", HF_SCALINGS)
def test_rotary_equals_that_of_hugging_face_llama(kind):
    llama = pytest.importorskip("transformers.models.llama.modeling_llama", reason="the models extra is not installed")
    from transformers import LlamaConfig

    sizes = {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 128}
    config = LlamaConfig(**sizes, rope_parameters=dict(HF_SCALINGS[kind]))
    embedding = llama.LlamaRotaryEmbedding(config)
    q, k = torch.randn(2, 1, 4, 40, 16)
    positions = torch.arange(3, 43)[None]
    expected = llama.apply_rotary_pos_emb(q, k, *embedding(q, positions))
    rotary = clearhead.Rotary(16, scaling=HF_SCALINGS[kind])
    torch.testing.assert_close((rotary(q, start=3), rotary(k, positions=positions)), expected, atol=1e-5, rtol=1e-4)


def test_the_interleaved_layout_is_a_complex_product():
    x = torch.randn(1, 2, 9, 8, dtype=torch.float64)
    angles = torch.arange(9, dtype=torch.float64)[:, None] * 10000.0 ** -(
        torch.arange(0, 8, 2, dtype=torch.float64) / 8
    )
    rotated = torch.view_as_real(
        torch.view_as_complex(x.unflatten(-1, (4, 2))) * torch.polar(torch.ones_like(angles), angles)
    )
    torch.testing.assert_close(clearhead.Rotary(8, layout="interleaved")(x), rotated.flatten(-2))
    # The two layouts are one permutation apart.
    order = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
    torch.testing.assert_close(clearhead.Rotary(8)(x[..., order]), rotated.flatten(-2)[..., order])


@pytest.mark.parametrize("start", [131_071, 1 << 24])
def test_rotary_at_large_positions_uses_exact_angles(start):
    x = torch.randn(1, 2, 7, 10)
    expected = clearhead.Rotary(10)(x.double(), start=start)
    torch.testing.assert_close(clearhead.Rotary(10)(x, start=start).double(), expected, atol=2e-6, rtol=1e-6)
    places, pairs = (torch.arange(*edges, dtype=torch.float64) for edges in ((start, start + 7), (0, 5)))
    angles = places[:, None] * 10000.0 ** -(pairs / 5)
    (a, b), cos, sin = x.double().chunk(2, -1), angles.cos(), angles.sin()
    torch.testing.assert_close(expected, torch.cat([a * cos - b * sin, b * cos + a * sin], -1), atol=1e-7, rtol=0)


def test_partial_rotary_ntk_and_errors():
    x = torch.randn(1, 1, 5, 8)
    part = clearhead.Rotary(8, width=4)(x)
    assert torch.equal(part[..., 4:], x[..., 4:])
    torch.testing.assert_close(part[..., :4], clearhead.Rotary(4)(x[..., :4]))
    stretched = clearhead.Rotary(8, scaling={"type": "ntk", "factor": 2.0})
    torch.testing.assert_close(stretched(x), clearhead.Rotary(8, base=10000.0 * 2 ** (8 / 6))(x))
    one_pair = clearhead.Rotary(2, scaling={"type": "ntk", "factor": 2.0})
    assert torch.equal(one_pair(x[..., :2]), clearhead.Rotary(2)(x[..., :2]))
    for wrong, message in (
        (lambda: clearhead.Rotary(7), "pairs"),
        (lambda: clearhead.Rotary(8, layout="both"), "interleaved"),
        (lambda: clearhead.Rotary(8, base=0), "base is 0; expected a positive number"),
        (lambda: clearhead.Rotary(8, scaling={"type": "spiral", "factor": None}), "llama3"),
        (lambda: clearhead.Rotary(8, scaling={"type": "linear", "factor": 0}), "factor of the 'linear' scaling is 0"),
        (lambda: clearhead.Rotary(8, scaling={"type": "ntk", "factor": None}), "factor of the 'ntk' scaling is None"),
        (lambda: clearhead.Rotary(8, scaling={"type": "llama3", "factor": 8.0}), "lacks low_freq_factor, high_freq"),
        (lambda: clearhead.Rotary(8, scaling={"type": "yarn", "factor": 8.0}), "lacks original_max_position"),
        (lambda: clearhead.Rotary(8)(torch.randn(1, 1, 2, 6)), r"Rotary\(6\)"),
        (lambda: clearhead.Rotary(8)(torch.randn(2, 1, 5, 8), positions=torch.arange(4)), r"\(L,\) or \(B, L\)"),
    ):
        with pytest.raises(clearhead.errors.ClearheadError, match=message):
            wrong()


def test_varlen_computes_each_sequence_by_itself():
    torch.manual_seed(0)
    rows, cols = [0, 3, 3, 8], [0, 2, 6, 13]
    q, k, v = (torch.randn(n, h, d, requires_grad=True) for n, h, d in ((8, H, D), (13, H_KV, D), (13, H_KV, E)))
    out, lse = clearhead.attention_varlen(
        q, k, v, torch.tensor(rows), torch.tensor(cols), is_causal=True, softcap=2.0, return_lse=True
    )
    # The same as one padded call under a mask of documents, each counting its own positions.
    expected = []
    for n in range(3):
        part = [t[a[n] : a[n + 1]].transpose(0, 1) for t, a in ((q, rows), (k, cols), (v, cols))]
        expected.append(clearhead.attention(*part, is_causal=True, enable_gqa=True, softcap=2.0).transpose(0, 1))
    torch.testing.assert_close(out, torch.cat(expected))
    assert lse.shape == (8, H)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), (q, k, v)))
    same = clearhead.attention_varlen(q, q, q, torch.tensor(rows))
    ids = torch.tensor([0] * 3 + [2] * 5)
    three = q.transpose(0, 1)[None]
    torch.testing.assert_close(same, clearhead.attention(three, three, three, masks.document(ids))[0].transpose(0, 1))


@pytest.mark.parametrize("offsets", [[0, 3], [1, 8], [0, 5, 3, 8], []])
def test_offsets_that_do_not_ascend_are_refused(offsets):
    q = torch.randn(8, 1, 4)
    with pytest.raises(ShapeError, match="ascending from 0 to 8"):
        clearhead.attention_varlen(q, q, q, torch.tensor(offsets, dtype=torch.int64))


@pytest.mark.parametrize("offsets", [torch.tensor([0.0, 3.5, 8.0]), [0, 3, 8], torch.tensor([[0, 8]])])
def test_offsets_of_another_form_are_refused(offsets):
    q = torch.randn(8, 1, 4)
    with pytest.raises(ShapeError, match=r"tensor of N \+ 1 integers"):
        clearhead.attention_varlen(q, q, q, offsets)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_through_the_function(layout):
    parts = [torch.randn(n, 2, D) for n in (3, 5)]
    if layout == torch.strided:
        nested = torch.nested.nested_tensor([part.transpose(0, 1) for part in parts])
    else:
        nested = torch.nested.nested_tensor(parts, layout=layout).transpose(1, 2)
    out = clearhead.attention(nested, nested, nested, is_causal=True)
    for n, actual in enumerate(out.unbind()):
        part = parts[n].transpose(0, 1)
        torch.testing.assert_close(actual, clearhead.attention(part, part, part, is_causal=True))
    with pytest.raises(OptionError, match="nested"):
        clearhead.attention(nested, nested, nested, return_lse=True)
    with pytest.raises(OptionError, match="Nest all three"):
        clearhead.attention(nested, torch.randn(2, 2, 3, D), torch.randn(2, 2, 3, D))
