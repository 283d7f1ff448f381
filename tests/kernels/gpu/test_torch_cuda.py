"""Torch's fused CUDA operators, tested without a GPU: their calls on meta tensors, and their results with a stand-in.

The stand-in returns what an operator documents, with its alignment and padding, so that the final result is compared
with float64. Only a GPU can show whether torch's operators behave as documented (bench/kernels/gpu.py).
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend

from clearhead.kernels import Problem
from clearhead.kernels.calls import checks
from clearhead.kernels.plan import plan
from clearhead.kernels.portable import torch_cuda
from clearhead.kernels.problem import Result
from clearhead.kernels.registry import KERNELS
from clearhead.kernels.triton.kernel import Triton, is_interpreted, slower_than_torch

from ..cases import CASES
from ..oracle import exact

FLASH, EFFICIENT, CUDNN = torch_cuda.FUSED


def fake(width: int = 16, kv_heads: int = 4, keys: int = 53, **options: Any) -> Problem:
    """Return a problem on the meta device, for the operators' own meta kernels."""
    query, key, value = (
        torch.empty(2, heads, length, width, device="meta", dtype=torch.bfloat16)
        for heads, length in ((4, 61), (kv_heads, keys), (kv_heads, keys))
    )
    return Problem(query, key, value, 0.3, **options)


@pytest.fixture
def takes(monkeypatch: pytest.MonkeyPatch) -> Callable[[SDPBackend | None], None]:
    """Make torch's function choose an operator, which torch without CUDA cannot do."""

    monkeypatch.setattr(torch_cuda, "DEVICES", ("meta",))

    def set_to(chosen: SDPBackend | None) -> None:
        number = 0 if chosen is None else chosen.value
        monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *args, **options: number)

    return set_to


def mask(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta", dtype=torch.bool)


@pytest.mark.parametrize("chosen", torch_cuda.FUSED, ids=lambda chosen: chosen.name)
@pytest.mark.parametrize("width", [16, 7], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_output_lse_and_gradients_have_the_problems_shapes(takes, chosen, width, masked) -> None:
    if masked and chosen is FLASH:
        pytest.skip("torch's flash operator does not support a mask")
    takes(chosen)
    problem = fake(width, allow=mask(2, 1, 61, 53)) if masked else fake(width, is_causal=True)
    kernel = KERNELS["torch"]
    assert torch_cuda.backend(problem) is chosen
    result = kernel.forward(problem)
    assert result.out.shape == problem.query.shape
    assert (result.lse.shape, result.lse.dtype) == ((2, 4, 61), torch.float32)
    gradients = kernel.backward(problem, result, torch.empty_like(result.out), None)
    for name in ("query", "key", "value"):
        grad, own = getattr(gradients, name), getattr(problem, name)
        assert (grad.shape, grad.dtype, grad.device) == (own.shape, own.dtype, own.device)


def test_only_the_efficient_operator_computes_the_gradient_of_a_bias(takes) -> None:
    bias = torch.empty(2, 4, 61, 53, device="meta", dtype=torch.bfloat16, requires_grad=True)
    whole, shared = fake(bias=bias), fake(bias=bias[:1].detach().requires_grad_())
    takes(CUDNN)
    assert torch_cuda.backend(whole) is None
    takes(EFFICIENT)
    assert torch_cuda.backend(whole) is EFFICIENT
    assert torch_cuda.backend(shared) is None, "the operator would compute it for each pair of the batch"
    with torch.no_grad():
        assert torch_cuda.backend(shared) is EFFICIENT
    result = KERNELS["torch"].forward(whole)
    assert KERNELS["torch"].backward(whole, result, result.out, None).attention["bias"].shape == bias.shape


@pytest.mark.parametrize(
    "options",
    [{"softcap": 2.0}, {"dropout_p": 0.1}, {"reach": (-3, 0)}, {"reach": (None, 5)}, {"scale": -0.3, "is_causal": True},
     {"scale": 0.0}, {"sinks": torch.zeros(4)}, {"alibi": torch.zeros(4)}],
    ids=str,
)  # fmt: skip
def test_unsupported_problems_are_left_to_other_kernels(takes, options: dict[str, Any]) -> None:
    takes(EFFICIENT)
    problem = fake()
    assert torch_cuda.backend(problem) is EFFICIENT
    assert torch_cuda.backend(Problem(problem.query, problem.key, problem.value, **{"scale": 0.3, **options})) is None


def test_triton_runs_only_if_no_operator_computes_the_problem(takes, monkeypatch) -> None:
    monkeypatch.setattr("clearhead.kernels.triton.kernel.is_interpreted", lambda: False)
    takes(FLASH)
    assert slower_than_torch(fake()) == "torch's flash attention operator computes it"
    assert slower_than_torch(fake(softcap=2.0)) is None
    takes(None)
    assert slower_than_torch(fake()) is None


def test_mask_rows_are_aligned_for_the_efficient_operator() -> None:
    """It reads rows of all keys with a stride that is a multiple of 8, as torch's own function pads them."""
    for shape in ((2, 1, 61, 53), (53,), (61, 1), (1, 4, 1, 53)):
        problem = Problem(*(torch.zeros(2, 4, n, 8) for n in (61, 53, 53)), 0.3, allow=torch.rand(shape) < 0.5)
        made = torch_cuda._mask(problem)
        assert made.shape == (2, 4, 61, 53)
        assert made.stride(-1) == 1
        assert all(stride % 8 == 0 for stride in made.stride()[:-1])
        assert torch.equal(made == 0, problem.attention.allow.expand(made.shape))


def test_the_padding_of_an_lse_is_restored_for_backward() -> None:
    given = torch.arange(2 * 3 * 64.0).view(2, 3, 64)
    assert torch_cuda._pad_rows(given[..., :61]).data_ptr() == given.data_ptr()
    for lse in (given[..., :61].contiguous(), given.transpose(0, 1)[..., :61]):
        padded = torch_cuda._pad_rows(lse)
        assert padded.shape[-1] == 64
        assert padded.stride(1) % 8 == 0
        assert torch.equal(padded[..., :61], lse)


def blocked(query, key, value, bias, is_causal, scale) -> tuple[Tensor, Tensor]:
    """Compute an operator's result on the CPU, with NaN in empty rows, which a kernel may leave there."""
    result = KERNELS["reference"].forward(Problem(query, key, value, scale, is_causal=is_causal, bias=bias))
    empty = result.lse == -torch.inf
    return result.out.masked_fill(empty[..., None], torch.nan), result.lse.masked_fill(empty, torch.nan).float()


@pytest.mark.parametrize("name", ["full", "causal", "grouped causal", "padding", "mask", "bias", "value wider"])
@pytest.mark.parametrize("chosen", torch_cuda.FUSED, ids=lambda chosen: chosen.name)
def test_results_with_a_stand_in_for_each_operator_equal_float64(monkeypatch, name: str, chosen: SDPBackend) -> None:
    problem = CASES[name].problem()
    attention = problem.attention
    if chosen is FLASH and attention.tensors():
        pytest.skip("torch's flash operator does not support a mask")

    def flash(query, key, value, dropout_p, is_causal, *, scale):
        assert query.shape[-1] % 8 == key.shape[-1] % 8 == value.shape[-1] % 8 == 0
        return blocked(query, key, value, None, is_causal, scale)

    def efficient(query, key, value, bias, compute_lse, dropout_p, is_causal, *, scale):
        out, lse = blocked(query, key, value, bias, is_causal, scale)
        return out, torch.nn.functional.pad(lse, (0, -lse.shape[-1] % 32), value=torch.inf)

    def cudnn(query, key, value, bias, compute_lse, dropout_p, is_causal, debug, *, scale):
        out, lse = blocked(query, key, value, bias, is_causal, scale)
        return out, lse[..., None]

    stand_ins = {"flash": flash, "efficient": efficient, "cudnn": cudnn}
    for operator, function in stand_ins.items():
        monkeypatch.setattr(torch_cuda, f"_{operator}", function)
    result: Result = torch_cuda.forward(problem, chosen)
    out, lse = exact(problem)
    torch.testing.assert_close(result.out.double(), out, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result.lse.double(), lse, rtol=1e-5, atol=1e-5)


def test_a_float_mask_on_another_device_is_not_read() -> None:
    """`.item()` would synchronise with the device; on a fake tensor it raises."""
    with FakeTensorMode():
        checks.warn_zero_one(torch.ones(61, 53, device="cuda"))
    with pytest.warns(UserWarning, match="zeros and ones"):
        checks.warn_zero_one(torch.ones(61, 53))


def test_a_plain_call_goes_to_torchs_function_if_it_uses_an_operator(takes) -> None:
    q = torch.ones(2, 4, 61, 8)
    takes(FLASH)
    assert torch_cuda.takes(q, q, q, True, None, False)
    assert not torch_cuda.takes(q, q[:, :2], q[:, :2], True, None, False)
    assert torch_cuda.takes(q, q[:, :2], q[:, :2], True, None, True)
    assert not torch_cuda.takes(q, q[:, :3], q[:, :3], True, None, True)
    assert not torch_cuda.takes(q, q, q, True, -1.0, False)
    assert not torch_cuda.takes(q, q.double(), q, True, None, False)
    assert not torch_cuda.takes(q, q[..., :7], q, True, None, False)
    assert not torch_cuda.takes(q[:, :, :0], q, q, True, None, False)
    takes(None)
    assert not torch_cuda.takes(q, q, q, True, None, False)


def test_triton_is_refused_without_importing_it() -> None:
    assert Triton().refuses(CASES["full"].problem()) is None or not is_interpreted()
    assert plan(CASES["full"].problem()).kernel != "triton"
