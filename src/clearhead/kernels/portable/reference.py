"""Kernel "reference": the equation in float64, with which every other kernel is compared."""

import torch
from torch import Tensor

from clearhead.kernels.capability import Capability
from clearhead.kernels.portable import blockwise
from clearhead.kernels.problem import Gradients, Problem, Result


class Reference:
    """Computes any problem in float64, one block of queries at a time; its lse is float64."""

    name = "reference"
    capabilities = Capability.FORWARD | Capability.GRADIENTS
    devices: tuple[str, ...] = ()
    has_targets = False

    def unavailable(self) -> str | None:
        return None

    def describe(self) -> str:
        return "float64, one block of queries at a time; runs wherever torch does"

    def refuses(self, problem: Problem, capability: Capability = Capability.FORWARD) -> str | None:
        if problem.query.device.type == "mps":
            return "the device has no float64"
        return None

    def forward(self, problem: Problem) -> Result:
        return blockwise.forward(problem, torch.float64)

    def takes_some_keys(self, problem: Problem) -> bool:
        return False

    def backward(self, problem: Problem, result: Result, grad_out: Tensor, grad_lse: Tensor | None) -> Gradients:
        return blockwise.backward(problem, result, grad_out, grad_lse, torch.float64)
