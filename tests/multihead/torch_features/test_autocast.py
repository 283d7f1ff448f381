"""Every public function under torch.autocast computes in, and returns, the dtypes of torch's own function."""

import contextlib
import itertools

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa
from torch.utils.checkpoint import checkpoint

import clearhead
import reference
from clearhead import masks

B, H, L, S, D = 2, 3, 5, 7, 11
DTYPES = (torch.float32, torch.bfloat16, torch.float64)
MASKS = (None, torch.bool, torch.float32, torch.float16)
LOWER = (torch.bfloat16, torch.float16)


def inputs(*dtypes: torch.dtype, learns: bool = False) -> list[torch.Tensor]:
    torch.manual_seed(0)
    lengths = (L, S, S)
    return [torch.randn(B, H, n, D).to(dtype).requires_grad_(learns) for n, dtype in zip(lengths, dtypes, strict=True)]


@contextlib.contextmanager
def other_device():
    """Enable autocast for CUDA. torch.autocast("cuda") itself warns and does nothing without such a device."""
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)


@contextlib.contextmanager
def off_inside():
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
        yield


STATES = {
    "bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "float16": lambda: torch.autocast("cpu", torch.float16),
    "off": lambda: torch.autocast("cpu", enabled=False),
    "off inside": off_inside,
    "of another device": other_device,
}


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_mixed_dtypes_follow_torchs_function(state: str) -> None:
    """Where torch returns, so do we, in its dtype, with gradients in the inputs' dtypes; where it raises, we raise."""
    for dtypes in itertools.product(DTYPES, repeat=3):
        for mask in MASKS:
            answers = []
            for function in (sdpa, clearhead.attention):
                tensors = inputs(*dtypes, learns=True)
                attn_mask = None if mask is None else torch.ones(L, S).tril(2).to(mask)
                if mask not in (None, torch.bool):
                    attn_mask = attn_mask * 0.5
                try:
                    with STATES[state]():
                        out = function(*tensors, attn_mask)
                except (RuntimeError, TypeError):
                    answers.append(None)
                    continue
                out.float().sum().backward()
                answers.append((out, *(t.grad for t in tensors)))
            torchs, ours = answers
            assert (torchs is None) == (ours is None), (dtypes, mask)
            if torchs is not None:
                torch.testing.assert_close(ours, torchs, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("kernel", ["native", "torch", "reference"])
def test_sums_stay_wide_under_autocast(kernel: str) -> None:
    """Autocast would compute products inside a kernel in bfloat16: an error of 2⁻⁹ instead of 2⁻²³."""
    if kernel == "native" and not any(a.available for a in clearhead.kernels.available() if a.kernel == kernel):
        pytest.skip("the native library was not built")
    q, k, v = inputs(*[torch.float32] * 3)
    with torch.autocast("cpu", torch.bfloat16):
        _, lse = clearhead.attention(q, k, v, softcap=2.0, return_lse=True, kernel=kernel)
    q, k, v = (x.bfloat16() for x in (q, k, v))
    expected = reference.attention(q, k, v, scale=D**-0.5, softcap=2.0)[1]
    torch.testing.assert_close(lse.double(), expected, atol=16 * torch.finfo(torch.float32).eps, rtol=0)


def test_a_matrix_computes_in_its_own_precision() -> None:
    q, k, v = inputs(*[torch.float32] * 3)
    for options in ({}, {"softcap": 2.0}, {"sinks": torch.zeros(H)}):
        exact = clearhead.AttentionMatrix(q, k, value=v, **options)
        with torch.autocast("cpu", torch.bfloat16):
            matrix = clearhead.AttentionMatrix(q, k, value=v, **options)
            actual = (
                matrix.to_dense(),
                matrix @ v,
                matrix.mT @ q,
                matrix.entropy(),
                matrix.received(),
                matrix.maximum(),
            )
            assert clearhead.AttentionMatrix(q, k.bfloat16()).dtype is torch.bfloat16
        expected = (exact.to_dense(), exact @ v, exact.mT @ q, exact.entropy(), exact.received(), exact.maximum())
        torch.testing.assert_close(actual, expected, atol=0, rtol=0)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("lower", LOWER)
def test_other_functions_return_the_autocast_dtype(lower: torch.dtype) -> None:
    q, k, v = inputs(torch.float32, lower, torch.float32)
    packed = [x[0, :, :L].transpose(0, 1) for x in (q, k, v)]
    rule = masks.causal() & masks.alibi(torch.ones(H))
    with torch.autocast("cpu", lower):
        assert clearhead.attention(q, k, v, rule).dtype is lower
        assert clearhead.attention(q, k, v, sinks=torch.zeros(H)).dtype is lower
        assert clearhead.attention_varlen(*packed, torch.tensor([0, 2, L])).dtype is lower
        assert clearhead.attention_varlen(*[x.double() for x in packed], torch.tensor([0, L])).dtype is torch.float64
        for method in ("straight_through", "gumbel", "reinforce"):
            out = clearhead.hard_attention(q, k, v, torch.zeros(L, S, dtype=lower), method=method)
            assert out.dtype is lower
        cache = clearhead.KVCache(B, H, 16, D)
        keys, values = cache.append(k, v)
        assert clearhead.attention(q.to(lower), keys, values).dtype is lower
        for options in ({}, {"need_weights": False}):
            layer = clearhead.MultiheadAttention(12, 3, batch_first=True, add_bias_kv=True, rotary=True)
            assert layer(*[torch.randn(B, L, 12)] * 3, **options)[0].dtype is lower
        nested = [torch.nested.nested_tensor(list(x[:, :, :L]), layout=torch.strided) for x in (q, k, v)]
        assert clearhead.attention(*nested).dtype is lower


def test_varlen_offsets_are_not_cast() -> None:
    packed = [torch.randn(S, H, D) for _ in range(3)]
    with torch.autocast("cpu", torch.bfloat16):
        actual = clearhead.attention_varlen(*packed, torch.tensor([0, 3, S]))
    expected = clearhead.attention_varlen(*[x.bfloat16() for x in packed], torch.tensor([0, 3, S]))
    torch.testing.assert_close(actual, expected)


def test_float64_input_of_a_float32_module_is_refused_under_autocast_too() -> None:
    layer = clearhead.MultiheadAttention(12, 3)
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(clearhead.errors.DtypeError, match=r"query is torch\.float64"),
    ):
        layer(*[torch.randn(L, B, 12).double()] * 3)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_gives_the_same_gradients(reentrant: bool) -> None:
    gradients = []
    for saves in (False, True):
        q, k, v = inputs(torch.float32, torch.float32, torch.bfloat16, learns=True)
        with torch.autocast("cpu", torch.bfloat16):
            call = checkpoint if saves else (lambda f, *args, use_reentrant: f(*args))
            out = call(clearhead.attention, q, k, v, use_reentrant=reentrant)
        out.square().sum().backward()
        gradients.append([x.grad for x in (q, k, v)])
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
def test_a_compiled_call_equals_the_eager_one() -> None:
    q, k, v = inputs(torch.float32, torch.bfloat16, torch.float16, learns=True)
    compiled = torch.compile(clearhead.attention, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(q, k, v), clearhead.attention(q, k, v))
