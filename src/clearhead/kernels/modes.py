"""The torch transforms and modes around a call: compile, export, vmap, differentiation, tracing, function modes."""

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.autograd import forward_ad

from clearhead.kernels.problem import has_own_memory


def records_operators(query: Tensor, *others: Tensor | None) -> bool:
    """Return whether torch records or transforms operators, or the tensors hold no data.

    >>> records_operators(torch.ones(2)), records_operators(torch.ones(2, device="meta"))
    (False, True)
    """
    return bool(
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or query.is_meta
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or type(query) not in (Tensor, torch.nn.Parameter)
        or not has_own_memory(*others)
    )


def differentiates_forward() -> bool:
    """Return whether forward-mode differentiation is active (torch.func's jvp, jacfwd, hessian).

    Also True if torch.compile traces a gradient of torch.func, which supports only torch's operators (torch 2.13).
    """
    return forward_ad._current_level >= 0 or (torch.compiler.is_compiling() and _takes_a_gradient())


def _takes_a_gradient() -> bool:
    levels = retrieve_all_functorch_interpreters()
    return any(level.key() == torch._C._functorch.TransformType.Grad for level in levels)


# The mark of torch.compiler.assume_constant_result, whose import would import the compiler: evaluate once per trace.
_takes_a_gradient._dynamo_marked_constant = True  # type: ignore[attr-defined]


def exports_to_onnx() -> bool:
    """Return whether `torch.onnx.export(dynamo=False)` traces; it records operators as they are called."""
    return not torch.compiler.is_compiling() and torch._C._is_tracing() and torch.onnx.is_in_onnx_export()


def traces_torchscript() -> bool:
    """Return whether torch.jit.trace records a graph for TorchScript, in which sizes are tensors."""
    return bool(torch.jit.is_tracing()) and not exports_to_onnx()  # type: ignore[attr-defined]
