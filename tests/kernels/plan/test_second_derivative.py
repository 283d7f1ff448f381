"""A second derivative is refused, whichever kernel the plan of this machine takes."""

import pytest
import torch

from clearhead import attention

from ..targets import needs_native

pytestmark = needs_native


@pytest.mark.parametrize("axes", [4, 3, 2])
@pytest.mark.parametrize("length", [1, 5, 200])
@pytest.mark.parametrize("masked", [False, True])
def test_every_kernel_behind_the_fast_path_refuses_a_second_derivative(axes: int, length: int, masked: bool) -> None:
    """Few tokens may go to torch's operator, whose own error names that operator."""
    inputs = [torch.randn((1, 2, size, 8)[4 - axes :], requires_grad=True) for size in (length, 7, 7)]
    mask = torch.ones(length, 7, dtype=torch.bool) if masked else None
    grads = torch.autograd.grad(attention(*inputs, mask).sum(), inputs, create_graph=True)
    for grad, plain in zip(grads, torch.autograd.grad(attention(*inputs, mask).sum(), inputs), strict=True):
        torch.testing.assert_close(grad, plain)
    with pytest.raises(
        RuntimeError, match=r"differentiated twice.*use torch.func.hessian|derivative for aten::_scaled"
    ):
        sum(grad.square().sum() for grad in grads).backward()  # type: ignore[union-attr]


@pytest.mark.parametrize("length", [5, 200])
@pytest.mark.parametrize("axes", [4, 3, 2])
def test_gradients_for_many_upstreams_at_once_equal_those_one_by_one(axes: int, length: int) -> None:
    inputs = [torch.randn((1, 2, size, 8)[4 - axes :], requires_grad=True) for size in (length, 7, 7)]
    upstream = torch.randn(3, *inputs[0].shape)
    together = torch.autograd.grad(attention(*inputs), inputs, upstream, is_grads_batched=True)
    for number, one in enumerate(upstream):
        alone = torch.autograd.grad(attention(*inputs), inputs, one)
        for grad, plain in zip(together, alone, strict=True):
            torch.testing.assert_close(grad[number], plain)
