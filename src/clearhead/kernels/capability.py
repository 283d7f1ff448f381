"""What a kernel can do: one protocol that every kernel has, and parts of it that only some have."""

from __future__ import annotations

from enum import Flag, auto
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from clearhead.kernels.problem import Gradients, Problem, Result
    from clearhead.kernels.second_pass import Statistics, Wanted


class Capability(Flag):
    """The parts of the protocol. A kernel names those it has in `capabilities`."""

    FORWARD = auto()
    GRADIENTS = auto()
    STATISTICS = auto()
    WEIGHTS = auto()
    LINEAR = auto()


class Kernel(Protocol):
    """One way to compute a Problem. Stateless; one class a file, listed in `registry.py`.

    Attributes:
        name: how callers ask for it.
        capabilities: the parts of this protocol, and of the three below, that it has.
        devices: the device types it computes on; empty for all that torch has.
        has_targets: whether it has a compiled copy for each CPU target (cpu_targets.py).
    """

    name: str
    capabilities: Capability
    devices: tuple[str, ...]
    has_targets: bool

    def unavailable(self) -> str | None:
        """Why this machine cannot run this kernel at all, in one line; None if it can."""

    def describe(self) -> str:
        """What it is and runs on here, in one line. Asked only where it is available."""

    def refuses(self, problem: Problem, capability: Capability = Capability.FORWARD) -> str | None:
        """Why this kernel cannot compute this of the problem, in one line; None if it can."""

    def forward(self, problem: Problem) -> Result:
        """Compute output and log-sum-exp. Never sees a problem it refuses. Not differentiable."""

    def backward(self, problem: Problem, result: Result, grad_out: Tensor, grad_lse: Tensor | None) -> Gradients:
        """Compute the gradients from what forward gave. `grad_lse` is None where the lse was not used."""

    def takes_some_keys(self, problem: Problem) -> bool:
        """Whether `backward` may be given some of the keys with the result of all of them: it takes each row's sum of
        dO · O from the output, not from the weights."""


class WithStatistics(Kernel, Protocol):
    """Has Capability.STATISTICS."""

    def statistics(
        self, problem: Problem, lse: Tensor, rows: range, keys: range, wanted: Wanted, statistics: Statistics
    ) -> None:
        """Write what is wanted of some rows and keys into `statistics`; sums over rows add to what is there."""

    def forward_with(self, problem: Problem, wanted: Wanted, statistics: Statistics) -> Result:
        """Compute `forward`, and write entropy, maximum, squares, mass and the best of each row into `statistics`."""


class WithWeights(Kernel, Protocol):
    """Has Capability.WEIGHTS."""

    def forward_with_weights(self, problem: Problem, weights: Tensor) -> Result:
        """Compute `forward`, and the weights, (B, H, L, S); their mean over heads where heads have stride 0."""


class WithLinear(Kernel, Protocol):
    """Has Capability.LINEAR."""

    def refuses_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
        """Why this kernel cannot compute the layer, in one line; None if it can."""

    def linear(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, strides: tuple[int, ...], length: int
    ) -> None:
        """Write x weightᵀ + bias, (R, O), into `out`, whose last axis is one head, contiguous.

        Args:
            strides: of `out`, in the order batch, head, row, 1; row r of the product is row r % length of batch
                r // length.
        """
